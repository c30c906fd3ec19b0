#!/bin/sh
# Installs what subscriber.cjs needs, outside the tree (where tests/interop/test_interop.py looks for it).
# zeromq carries its native library ready built, so no install script has to run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${EMOGRAPH_INTEROP:-${XDG_CACHE_HOME:-$HOME/.cache}/emograph/interop}
mkdir -p "$folder"
cp "$here/package.json" "$folder/"
npm install --prefix "$folder" --ignore-scripts --no-package-lock --no-audit --no-fund
