#!/bin/sh
# bare_compiler.sh COMPILER SOURCE_FOLDER WORK_FOLDER: no build system, only -I include and the libraries.
set -eu
compiler=$1 source=$2 work=$3
mkdir -p "$work"
cd "$work"
program=$source/tests/consumers/program
flags="-std=c++20 -Wall -Wextra -Wconversion -Wshadow -Werror -I $source/include"

"$compiler" $flags "$program/kernels.cpp" -pthread -o kernels
./kernels
"$compiler" $flags "$program/main.cpp" "$program/second.cpp" -pthread -lpcre2-8 -lutf8proc -o whole
./whole
