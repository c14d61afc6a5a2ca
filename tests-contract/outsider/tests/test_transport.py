"""The transport `socket`, held to the contract."""

import os

from intercede.contract import LocalProbe, TransportContract, TransportResource

PLACE = os.environ["OUTSIDER_TESTS"]
TRANSPORT = {"type": "socket", "socket": f"{PLACE}/socket"}


class TestSocket(TransportContract):
    resource = TransportResource(config=TRANSPORT, seconds=0.2, logins={}, probe=LocalProbe(PLACE))
