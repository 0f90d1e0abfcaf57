#!/usr/bin/env bash
# The kernel tests on emulated kernels with every access examined, on two seeds, then under AddressSanitizer and
# UndefinedBehaviorSanitizer. Needs an install with ZFCUDA_CHECKED=ON; `python` is the one that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

run() { python -m pytest -q -p no:cacheprovider -k emulated tests/kernels; }

for seed in 1 2; do
    printf '== Every access examined, seed %d\n' "$seed"
    ZFCUDA_EMULATED_MODULE=_checked ZFCUDA_EMULATOR_SEED=$seed run
done

printf '== AddressSanitizer and UndefinedBehaviorSanitizer\n'
libraries="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    ZFCUDA_EMULATED_MODULE=_sanitized ZFCUDA_EMULATOR_SEED=3 run
