#!/bin/sh
# Builds and runs the port's own tests, with more flags for g++ as arguments.
set -e
cd "$(dirname "$0")"
mkdir -p build
g++ -std=c++20 -g -O2 -Wall -Wextra -Werror -pthread "$@" -o build/test test.cpp
exec build/test
