#include "wgmma_use.h"

#include <cstdlib>
#include <stdexcept>

namespace zfcuda::conv {

WgmmaUse wgmma_use() {
    static const std::string wanted = [] {
        const char* value = std::getenv("ZFCUDA_KERNELS");
        return std::string(value ? value : "");
    }();
    if (!wanted.empty() && wanted != "mma" && wanted != "wgmma")
        throw std::invalid_argument("ZFCUDA_KERNELS must be mma or wgmma, got '" + wanted + "'");
    if (wanted == "mma") return WgmmaUse::kNever;
    if (can_run_wgmma()) return wanted.empty() ? WgmmaUse::kIfPlanned : WgmmaUse::kAlways;
    if (wanted == "wgmma")
        throw std::runtime_error(
            "ZFCUDA_KERNELS is wgmma, but this device or this build has no such kernels: they need "
            "compute capability 9.0 and code for sm_90a");
    return WgmmaUse::kNever;
}

}  // namespace zfcuda::conv
