#!/usr/bin/env bash
# The kernel tests on emulated kernels with every access examined, on two seeds, then under AddressSanitizer and
# UndefinedBehaviorSanitizer; each run ends with the check that it has reached every variant of every kernel. Then random
# calls of every operation under the same, so many of each (first argument; 2,000 by default, a minute).
# Needs an install with ZFCUDA_CHECKED=ON; `python` is the one that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

run() { python -m pytest -q -p no:cacheprovider -k "emulated or every_variant" tests/kernels; }

for seed in 1 2; do
    printf '== Every access examined, seed %d (%d s)\n' "$seed" "$SECONDS"
    ZFCUDA_EMULATED_MODULE=_checked ZFCUDA_EMULATOR_SEED=$seed run
done

printf '== AddressSanitizer and UndefinedBehaviorSanitizer (%d s)\n' "$SECONDS"
libraries="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    ZFCUDA_EMULATED_MODULE=_sanitized ZFCUDA_EMULATOR_SEED=3 run

printf '== Pictures, under the same (%d s)\n' "$SECONDS"
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ZFCUDA_ISA=sanitized \
    python -m pytest -q -p no:cacheprovider tests/kernels/test_resample_cpu.py tests/kernels/test_stored_images_cpu.py

for backend in cpu emulated; do
    printf '== Random calls of every operation on %s, under the same (%d s)\n' "$backend" "$SECONDS"
    LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ZFCUDA_ISA=sanitized \
        ZFCUDA_EMULATED_MODULE=_sanitized python -m tests.fuzz "$backend" --calls "${1:-2000}"
done

printf '== All examined (%d s)\n' "$SECONDS"
