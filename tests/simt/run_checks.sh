#!/usr/bin/env bash
# The kernel tests on emulated kernels with every access examined, on some seeds, and under AddressSanitizer and
# UndefinedBehaviorSanitizer; each run ends with the check that it has reached every variant of every kernel. Then random
# calls of every operation under the same, so many of each.
#   run_checks.sh [CALLS [SEED ...]]    2,000 calls (a minute) and the seeds 1 and 2, if nothing else is said
# All go side by side, since the emulator uses one processor; what one says is printed when it has ended.
# Needs an install with ZFCUDA_CHECKED=ON; `python` is the one that has it.
set -euo pipefail
cd "$(dirname "$0")/../.."

calls=${1:-2000}
seeds=("${@:2}")
((${#seeds[@]})) || seeds=(1 2)
test_kernels() { python -m pytest -q -p no:cacheprovider -k "emulated or every_variant" tests/kernels; }

examine_accesses() { # SEED
    printf '== Every access examined, seed %d\n' "$1"
    ZFCUDA_EMULATED_MODULE=_checked ZFCUDA_EMULATOR_SEED=$1 test_kernels
}

sanitize() {
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 ZFCUDA_EMULATED_MODULE=_sanitized
    LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
    export LD_PRELOAD
    printf '== AddressSanitizer and UndefinedBehaviorSanitizer\n'
    ZFCUDA_EMULATOR_SEED=3 test_kernels

    export ZFCUDA_ISA=sanitized
    printf '== Pictures, under the same\n'
    python -m pytest -q -p no:cacheprovider tests/kernels/test_resample_cpu.py tests/kernels/test_stored_images_cpu.py

    for backend in cpu emulated; do
        printf '== Random calls of every operation on %s, under the same\n' "$backend"
        python -m tests.fuzz "$backend" --calls "$calls"
    done
}

outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
jobs=()
start() { # OUTPUT COMMAND...
    (set -e; "${@:2}") &>"$outputs/$1" &
    jobs+=("$! $1")
}
for seed in "${seeds[@]}"; do
    start "seed-$seed" examine_accesses "$seed"
done
start sanitizers sanitize

failed=()
for job in "${jobs[@]}"; do
    read -r process output <<<"$job"
    wait "$process" || failed+=("$output")
    cat "$outputs/$output"
done
if ((${#failed[@]})); then
    printf '== Failed after %d s: %s\n' "$SECONDS" "${failed[*]}"
    exit 1
fi
printf '== All examined (%d s)\n' "$SECONDS"
