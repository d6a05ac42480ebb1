#!/bin/sh
# Builds the player and plays the vectors.
set -e
cd "$(dirname "$0")"
mkdir -p build
g++ -std=c++20 -O2 -Wall -Wextra -Werror -pthread -o build/vectors vectors.cpp
exec build/vectors
