// The Python modules that bindings are compiled for: that of one backend, ZFCUDA_MODULE, or those of the
// CPU, which differ in their kernels alone. Python calls what has the name of the file.
#include "bindings.h"

#define ZFCUDA_DEFINE_MODULE(name) \
    PYBIND11_MODULE(name, m) {     \
        zfcuda::bind_backend(m);   \
    }

#if defined(ZFCUDA_MODULE)
ZFCUDA_DEFINE_MODULE(ZFCUDA_MODULE)
#else
ZFCUDA_DEFINE_MODULE(_cpu_baseline)
ZFCUDA_DEFINE_MODULE(_cpu_avx2)
ZFCUDA_DEFINE_MODULE(_cpu_avx512)
ZFCUDA_DEFINE_MODULE(_cpu_sanitized)
#endif
