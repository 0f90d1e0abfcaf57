#!/usr/bin/env bash
# The kernel tests on emulated kernels with every access examined, on some seeds, and under AddressSanitizer and
# UndefinedBehaviorSanitizer; each run ends with the check that it has reached every variant of every kernel. Then random
# calls of every operation under the same, so many of each.
#   run_checks.sh [EVERY [CALLS [SEED ...]]]    1, 2,000 calls (a minute) and the seeds 1 and 2, if nothing else is said
# With EVERY above 1, one in so many cases of each test is run, and no check of the variants. All of them take half an
# hour for each seed on two processors of a Zen 3.
# Needs an install with ZFCUDA_CHECKED=ON; `python` is the one that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

export ZFCUDA_EVERY=${1:-1}
calls=${2:-2000}
seeds=("${@:3}")
((${#seeds[@]})) || seeds=(1 2)
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
step() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

# A process for each processor, since the emulator uses one.
test_kernels() { # SEED
    ZFCUDA_LAUNCHES=$(mktemp -d "$outputs/XXXXXX")
    export ZFCUDA_LAUNCHES ZFCUDA_EMULATOR_SEED=$1
    python -m pytest -q -p no:cacheprovider -n auto -k "emulated and not every_variant" tests/kernels
    ((ZFCUDA_EVERY > 1)) || python -m pytest -q -p no:cacheprovider -k every_variant tests/kernels/test_variants.py
}

for seed in "${seeds[@]}"; do
    step "Every access examined, seed $seed"
    (export ZFCUDA_EMULATED_MODULE=_checked && test_kernels "$seed")
done

export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ZFCUDA_EMULATED_MODULE=_sanitized
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export LD_PRELOAD
step "AddressSanitizer and UndefinedBehaviorSanitizer"
(test_kernels 3)

export ZFCUDA_ISA=sanitized
step "Pictures, under the same"
ZFCUDA_EVERY=1 python -m pytest -q -p no:cacheprovider tests/kernels/test_resample_cpu.py tests/kernels/test_stored_images_cpu.py

step "Random calls of every operation, under the same"
python -m tests.fuzz cpu --calls "$calls" &>"$outputs/cpu" &
python -m tests.fuzz emulated --calls "$calls"
wait $! || { cat "$outputs/cpu" && exit 1; }
step "All examined"
