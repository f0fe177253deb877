#!/bin/sh
# 210_engine_crash.t - power cuts at every point of flush and compaction; see the program.
#
# SPDX-License-Identifier: Apache-2.0
exec "${T4_BUILD_DIR:-.}/regress/tools/engine_crash"
