"""What comes back of a job's files, and what does not."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from intercede.backend.batch import _sandbox
from intercede.core import (
    CopyVars,
    FailureCode,
    FileRef,
    JobStatus,
    OutputMember,
    OutputSpec,
    ResourceError,
    SpecRefused,
)


async def fetch(make_backend: Any, tools: Any, tmp_path: Path, spec: Any, **config: Any) -> Any:
    """Run one copy and fetch it. Returns its output."""
    async with make_backend(**config) as ce:
        ids = tools.ids_of(await ce.submit(spec))
        await tools.finish(ce, ids)
        result = await ce.fetch_output(ids, tmp_path / "out")
        output = result[ids[0]]
        assert dict(result.failures) == ({ids[0]: output.failure} if output.failure else {})
        for path in output.files.values():
            assert path.is_relative_to(tmp_path / "out")
            assert not path.is_symlink()
        return output


async def test_names_patterns_and_trees_come_back_and_what_is_absent_is_listed(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    text = """
mkdir -p plots/deep d1 d2 empty
echo 1 > a.csv; echo 2 > b.csv; echo 3 > .c.csv; echo 4 > plots/deep/x; echo 5 > d1/r; echo 6 > d2/r; echo 7 > other
"""
    members = ["*.csv", "plots/", "d?/r", "absent", "no/such/", "d?", "empty/"]
    output = await fetch(
        make_backend, tools, tmp_path, tools.script(text, outputs=OutputSpec(members))
    )
    assert sorted(output.files) == ["a.csv", "b.csv", "d1/r", "d2/r", "plots/deep/x"]
    assert output.files["plots/deep/x"].read_text() == "4\n"
    assert output.missing == ("absent", "no/such/", "d?", "empty/")
    assert output.failure is None


async def test_everything_leaves_out_inputs_and_the_executable(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    program = tmp_path / "[prog]*"
    program.write_text(
        "#!/bin/sh\necho more >> 'in[1]'; echo x > made; mkdir sub; echo y > sub/prog; echo > tree/made\n"
    )
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "leaf").write_text("2")
    spec = type(tools.script(""))(
        program,
        inputs=[FileRef("in[1]", content=b"1"), FileRef("tree", source=tree)],
        outputs=OutputSpec(everything=True),
    )
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert sorted(output.files) == ["made", "sub/prog", "tree/made"]


async def test_what_two_patterns_match_comes_back_once(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    spec = tools.script("mkdir d; echo 1 > d/a", outputs=OutputSpec(["d/", "*/a", "d/a"]))
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert list(output.files) == ["d/a"]
    assert output.failure is None


async def test_an_input_that_is_asked_for_by_name_comes_back_as_it_is_now(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    spec = tools.script(
        "echo 2 >> state", inputs=[FileRef("state", content=b"1\n")], outputs=OutputSpec(["state"])
    )
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert output.files["state"].read_text() == "1\n2\n"


@pytest.mark.parametrize("outputs", [OutputSpec(everything=True), OutputSpec(["*", "s/", "s/key"])])
async def test_no_secret_comes_back(
    make_backend: Any, tools: Any, tmp_path: Path, outputs: OutputSpec
) -> None:
    async with make_backend() as ce:
        copies = [CopyVars(secrets={"token": b"1", "s/key": b"2"})]
        ids = tools.ids_of(
            await ce.submit(tools.script("cat token s/key; echo > s/made", outputs=outputs), copies)
        )
        await tools.finish(ce, ids)
        output = (await ce.fetch_output(ids, tmp_path / "out"))[ids[0]]
    assert output.stdout is not None
    assert output.stdout.read_text() == "12"
    assert sorted(output.files) == ["s/made"]


async def test_unusual_names_come_back_byte_for_byte(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    names = [
        "-n",
        " a b ",
        "new\nline",
        "\udcff\udc80",
        "a'b\"c",
        "back\\slash",
        "*",
        "--help",
        "\t",
    ]
    spec = tools.script(
        'for f; do printf "%s\\n" "$f" > "./$f"; done', *names, outputs=OutputSpec(everything=True)
    )
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert sorted(output.files) == sorted(names)
    for name, path in output.files.items():
        assert path.read_bytes() == os.fsencode(name) + b"\n"


async def test_a_long_name_and_a_deep_tree_come_back(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    long, deep = "n" * 200, "/".join(["d" * 60] * 8)
    spec = tools.script(
        'echo 1 > "$1"; mkdir -p "$2"; echo 2 > "$2/f"',
        long,
        deep,
        outputs=OutputSpec(["n*", "d*/"]),
    )
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert sorted(output.files) == [f"{deep}/f", long]


@pytest.mark.parametrize(
    ("text", "arrived"),
    [
        ("ln -s /etc/passwd x", []),
        ("ln -s ../../../../etc/passwd x", []),
        ("mkfifo x", []),
        ("ln -s x x", []),
        ("ln -s . x", []),
        ("ln -s /etc sub; ln -s sub x", []),
        ("mknod x c 1 3", []),
    ],
)
async def test_what_leads_out_is_refused_alone(
    make_backend: Any, tools: Any, tmp_path: Path, text: str, arrived: list[str]
) -> None:
    if "mknod" in text and os.getuid() != 0:
        pytest.skip("only root can make a device")
    spec = tools.script(f"{text}; echo 1 > good", outputs=OutputSpec(["x", "good"]))
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert sorted(output.files) == ["good", *arrived]
    assert output.failure is not None
    assert output.failure.code is FailureCode.UNSAFE
    assert "work/x" in output.failure.message


async def test_a_file_behind_a_directory_that_is_a_link_is_refused(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    for members in (["etc/passwd"], ["e*/passwd"], ["etc/"], ["etc/default/"]):
        spec = tools.script("ln -s /etc etc; echo 1 > good", outputs=OutputSpec([*members, "good"]))
        output = await fetch(make_backend, tools, tmp_path, spec)
        assert sorted(output.files) == ["good"], members
        assert output.failure is not None
        assert output.failure.code is FailureCode.UNSAFE


async def test_links_within_become_copies(make_backend: Any, tools: Any, tmp_path: Path) -> None:
    text = "mkdir d; echo 1 > d/a; ln -s d/a soft; ln d/a hard; ln -s ../d/a d/up"
    output = await fetch(
        make_backend, tools, tmp_path, tools.script(text, outputs=OutputSpec(everything=True))
    )
    assert sorted(output.files) == ["d/a", "d/up", "hard", "soft"]
    assert {path.read_text() for path in output.files.values()} == {"1\n"}
    assert {path.stat().st_nlink for path in output.files.values()} == {1}


async def test_a_payload_that_replaces_its_own_sandbox_with_links_gets_nothing_out(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    text = "cd ..; rm -rf work stdout; ln -s /etc work; ln -s /etc/passwd stdout; ln -s /etc/passwd log"
    output = await fetch(
        make_backend, tools, tmp_path, tools.script(text, outputs=OutputSpec(everything=True))
    )
    assert output.files == {}
    assert output.stdout is None
    assert output.log is None
    assert output.failure is not None


async def test_streams_get_the_names_that_were_asked_for(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    spec = tools.script("echo out; echo err >&2", stdout="job.out", stderr="job.err")
    output = await fetch(make_backend, tools, tmp_path, spec)
    assert output.stdout.name == "job.out"
    assert output.stdout.read_text() == "out\n"
    assert output.stderr.name == "job.err"
    assert output.stderr.read_text() == "err\n"


async def test_a_second_fetch_replaces_the_first(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    async with make_backend() as ce:
        assert not ce.destructive
        ids = tools.ids_of(
            await ce.submit(tools.script("echo 1 > a", outputs=OutputSpec(["a"])), 2)
        )
        await tools.finish(ce, ids)
        first = await ce.fetch_output(ids, tmp_path / "out")
        (first[ids[0]].files["a"].parent / "mine").write_text("")
        first[ids[0]].files["a"].unlink()
        second = await ce.fetch_output(ids, tmp_path / "out")
    assert dict(first) == dict(second)
    assert sorted(os.listdir(first[ids[0]].files["a"].parent)) == ["a"]
    assert sorted(os.listdir(tmp_path / "out")) == [ids[0].split("/")[1]]


@pytest.mark.parametrize(
    "config", [{"output_max_bytes": 1000}, {"output_max_files": 3}, {"output_max_s": 1e-6}]
)
async def test_a_limit_fails_that_job_alone_and_leaves_nothing_of_it(
    make_backend: Any, tools: Any, tmp_path: Path, config: dict[str, Any]
) -> None:
    text = '[ "$INTERCEDE_COPY" = 1 ] && { seq 1000 > a; touch b c d; } || :'
    async with make_backend(**config) as ce:
        ids = tools.ids_of(await ce.submit(tools.script(text, outputs=OutputSpec(["*"])), 3))
        await tools.finish(ce, ids)
        result = await ce.fetch_output(ids, tmp_path / "out")
    assert result.failures[ids[1]].code is FailureCode.LIMIT
    assert next(iter(config)).removeprefix("output_max_") in result.failures[ids[1]].message
    directory = tmp_path / "out" / ids[0].split("/")[1]
    if "output_max_s" in config:
        assert not directory.exists()
    else:
        assert list(result.failures) == [ids[1]]
        assert sorted(os.listdir(directory)) == ["0", "2"]


async def test_a_killed_job_gives_back_what_it_wrote(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    async with make_backend(slots=1) as ce:
        spec = tools.script("echo 1; echo 2 > a; sleep 300", outputs=OutputSpec(["a"]))
        ids = tools.ids_of(await ce.submit(spec, 2))
        while not (await ce.diagnostics(ids))[ids[0]].stdout_tail:
            pass
        (await ce.kill(ids)).raise_for_failures()
        result = await ce.fetch_output(ids, tmp_path / "out")
        assert await tools.finish(ce, ids) == [JobStatus.CANCELLED] * 2
    assert result[ids[0]].stdout.read_text() == "1\n"
    assert result[ids[0]].files["a"].read_text() == "2\n"
    # The other never started: there is nothing, and that is no failure.
    assert result[ids[1]].stdout is None
    assert result[ids[1]].missing == ("a",)
    assert not result.failures


async def test_a_destination_at_a_url_is_refused(make_backend: Any, tools: Any) -> None:
    outputs = OutputSpec([OutputMember("a", destination="https://x/a")])
    async with make_backend() as ce:
        with pytest.raises(SpecRefused, match="uploads nothing") as caught:
            await ce.submit(tools.script("true", outputs=outputs))
        assert caught.value.field == "outputs.members[0].destination"


async def test_a_secret_with_the_name_of_an_input_is_refused(make_backend: Any, tools: Any) -> None:
    spec = tools.script(
        "cat d/b d/c/e", inputs=[FileRef("a", content=b""), FileRef("d/c/e", content=b"")]
    )
    async with make_backend() as ce:
        for name in ("a", "a/b", "d"):
            with pytest.raises(SpecRefused, match=f"'{name}' is in the way") as caught:
                await ce.submit(spec, [CopyVars(), CopyVars(secrets={name: b"x"})])
            assert caught.value.field == "copies[1].secrets"
        ids = tools.ids_of(await ce.submit(spec, [CopyVars(secrets={"d/b": b"x"})]))
        assert await tools.finish(ce, ids) == [JobStatus.SUCCESSFUL]


async def test_an_answer_that_is_none_is_an_error_with_its_words(
    make_backend: Any, tools: Any, tmp_path: Path
) -> None:
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("true")))
        await tools.finish(ce, ids)
        wire.shell = ("sh", "-c", "cat >/dev/null; echo 'eval: not found'", "sh")
        with pytest.raises(ResourceError, match="not an answer") as caught:
            await ce.fetch_output(ids, tmp_path / "out")
    assert "eval: not found" in caught.value.said


async def test_what_was_lost_is_told_as_lost(make_backend: Any, tools: Any, tmp_path: Path) -> None:
    """The host's word ends within the first job."""
    wire = tools.Wire()
    async with make_backend(wire) as ce:
        ids = tools.ids_of(await ce.submit(tools.script("head -c 100000 /dev/zero"), 2))
        await tools.finish(ce, ids)
        wire.shell = ("sh", "-c", 'sh -c "$2" | head -c 50000', "sh")
        outputs = await ce.fetch_output(ids, tmp_path / "out")
    assert {failure.code for failure in outputs.failures.values()} == {FailureCode.NOT_NOW}
    assert outputs.failures.keys() == set(ids)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("ended", [False, True])
def test_the_host_says_of_each_job_what_it_is(tmp_path: Path, ended: bool) -> None:
    copies = {"a/0": ["exit", "stdout"], "a/1": ["stdout"], "b/0": ["exit"], "d/0": ["exit"]}
    for copy, files in copies.items():
        (tmp_path / copy / "work").mkdir(parents=True)
        for name in files:
            (tmp_path / copy / name).touch()
        (tmp_path / copy / "work" / "f").touch()
    for link in ("a/2", "a/3"):
        (tmp_path / link).symlink_to(tmp_path / f"a/{int(link[-1]) - 2}")
    (tmp_path / "e").symlink_to("a")
    for submission in ("a", "b"):  # d has none: it is nobody's
        (tmp_path / submission / "meta").write_text("here 1\n\n{}\n")
    (tmp_path / "a" / "select").write_text("""select_output() { printf '%s\\0' "$1/f"; }\n""")
    jobs = [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("a", 4),
        ("b", 0),
        ("c", 0),
        ("d", 0),
        ("e", 0),
    ]
    script = _sandbox.stream_output(jobs, "here", ended=ended, pack="tr '\\0' ' '")
    text = f'exec 3>&1; frame() {{ echo "<$*>"; }}\n{script}'
    done = subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, check=True)
    first = "a/0/stdout a/0/work/f a/0 "
    second = "a/1/stdout a/1/work/f a/1 " if ended else ""
    assert done.stdout.decode() == (
        f"<say>\nmeta a {{}}\nmeta b {{}}\n<tar>\n{first}{second}b/0 <others>\n"
        + ("" if ended else "unended a/1\n")
        + "absent a/2\nabsent a/3\nabsent a/4\nabsent c/0\nabsent d/0\nabsent e/0\n<tar-ended>\ncode 0\n"
    )
    assert not done.stderr


@pytest.mark.parametrize("outputs", [OutputSpec(["f"]), OutputSpec(everything=True)])
def test_that_a_file_may_not_be_read_is_said_before_the_job_ends(
    tmp_path: Path, tools: Any, outputs: OutputSpec
) -> None:
    for copy in ("0", "1"):
        (tmp_path / "a" / copy / "work").mkdir(parents=True)
        (tmp_path / "a" / copy / "exit").touch()
        (tmp_path / "a" / copy / "work" / "f").touch(mode=0 if copy == "0" else 0o600)
    (tmp_path / "a" / "meta").write_text("here 2\n\n{}\n")
    select = _sandbox.select_function(tools.script("true", outputs=outputs), [])
    (tmp_path / "a" / "select").write_text(select)
    script = _sandbox.stream_output([("a", 0), ("a", 1)], "here", ended=False, pack="tr '\\0' ' '")
    text = f'exec 3>&1; frame() {{ echo "<$*>"; }}\n{script}'
    command = tools.plainly("sh", "-c", text)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    names = done.stdout.decode().partition("<tar>\n")[2].partition("<others>")[0]
    assert names == "a/0/work/f a/0/work a/0 a/1/work/f a/1 "
