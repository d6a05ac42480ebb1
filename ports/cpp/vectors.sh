#!/bin/sh
# Builds the player and plays the vectors.
set -e
cd "$(dirname "$0")"
mkdir -p build
g++ -std=c++20 -O2 -Wall -Wextra -Werror -pthread -o "build/vectors.$$" vectors.cpp
# In one step: another call may be running the old one just now, and a file that is written to can't be run.
mv "build/vectors.$$" build/vectors
exec build/vectors
