// The Python module of one backend: `_cpu_*`, `_cuda` or `_emulated`, by ZFCUDA_MODULE.
#include "bindings.h"

PYBIND11_MODULE(ZFCUDA_MODULE, m) {
    zfcuda::bind_backend(m);
}
