#!/bin/sh
# pkg_config.sh COMPILER SOURCE_FOLDER INSTALLED_FOLDER WORK_FOLDER: the flags come from pkg-config, and the installed tree
# has been moved since it was installed.
set -eu
compiler=$1 source=$2 installed=$3 work=$4
rm -rf "$work"
mkdir -p "$work"
cp -R "$installed" "$work/moved"
cd "$work"
PKG_CONFIG_PATH=$work/moved/share/pkgconfig
export PKG_CONFIG_PATH
program=$source/tests/consumers/program

pkg-config --exact-version="$(sed -n 's/^Version: //p' moved/share/pkgconfig/effinfer.pc)" effinfer
"$compiler" -std=c++20 "$program/kernels.cpp" $(pkg-config --cflags --libs effinfer-kernels) -o kernels
./kernels
"$compiler" -std=c++20 "$program/parts.cpp" "$program/product.cpp" $(pkg-config --cflags --libs effinfer) -o parts
./parts
