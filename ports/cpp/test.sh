#!/bin/sh
# Builds and runs the port's own tests, with more flags for g++ as arguments, and plays the vectors.
set -e
cd "$(dirname "$0")"
mkdir -p build
g++ -std=c++20 -g -O2 -Wall -Wextra -Werror -pthread "$@" -o build/test test.cpp
build/test
exec sh vectors.sh
