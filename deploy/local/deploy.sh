#!/usr/bin/env bash
# From this commit to the service that answers on this host: environment, lint, types, quick tests, then the champion's
# Bento built from this code and moved in blue-green, and a look through the gateway. CI runs it; so can a person.
#
#   deploy/local/deploy.sh [RELEASE]     default: the champion of the home (SWITCHYARD_HOME)
#
# Nothing changes if a step fails: the service before goes on. A change of the columns' code needs a release of its own
# first (`switchyard demo`, or the job 'retrain'); building the champion's Bento refuses it in words.
set -euo pipefail
cd "$(dirname "$0")/../.."
started=$SECONDS
commit=$(git rev-parse --short HEAD)
if ! git diff --quiet HEAD; then
    echo "there are changes that are in no commit; commit them or put them aside, then deploy" >&2
    exit 1
fi

make .venv/run .venv/dev
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
mypy
python -m pytest -q tests/serving tests/contracts/test_imports_point_one_way.py tests/orchestration/test_gateway.py

switchyard deploy "$@" --why "commit $commit"
switchyard status | head -n 12
echo "commit $commit answers $((SECONDS - started)) s after the beginning"
