#!/bin/sh
# A small analysis, as a user would bring it: awk and nothing else. Fills a histogram of random values.
#
#   analyse.sh --title TEXT --events N
#
# Reads calibration.txt and cuts/energy.txt beside it, and SEED from the environment.
# Writes histogram.csv and plots/histogram.txt; the summary goes to stdout.
set -eu

title=untitled
events=1000
while [ $# -gt 0 ]; do
    case $1 in
        --title) title=$2; shift 2 ;;
        --events) events=$2; shift 2 ;;
        *) echo "analyse.sh: unknown argument: $1" >&2; exit 64 ;;
    esac
done

scale=$(awk -F, '$1 == "scale" { print $2 }' calibration.txt)
cut=$(cat cuts/energy.txt)

awk -v seed="$SEED" -v events="$events" -v scale="$scale" -v cut="$cut" '
    BEGIN {
        srand(seed)
        for (i = 0; i < events; i++) {
            energy = scale * (rand() + rand() + rand() + rand()) * 2.5
            if (energy >= cut) { bins[int(energy)]++; kept++ }
        }
        print "bin,count"
        for (bin = 0; bin < 12; bin++) print bin "," bins[bin] + 0
        print "kept " kept + 0 " of " events > "kept.txt"
    }' > histogram.csv

mkdir plots
awk -F, 'NR > 1 { bar = sprintf("%*s", $2 / 20, ""); gsub(/ /, "#", bar); printf "%2d %s\n", $1, bar }' \
    histogram.csv > plots/histogram.txt

sleep $((SEED % 2)) # as if it were more work
echo "$title, seed $SEED: $(cat kept.txt)"
