// What the CUDA backend says of itself: whether it can run here, and on what.
#include "conv/tuned_plans.h"
#include "conv/wgmma_use.h"
#include "ops.h"
#include "simt/simt.h"

namespace zfcuda {

#if defined(__CUDACC__)

namespace {

// The kernels copy asynchronously to shared memory (cp.async), which came with compute capability
// 8.0; the binary has no code for older devices.
constexpr int kLeastMajor = 8;

std::string version(int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string describe(const cudaDeviceProp& device) {
    return std::string(device.name) + " (compute capability " + std::to_string(device.major) + "." +
           std::to_string(device.minor) + ", " + std::to_string(device.multiProcessorCount) +
           " multiprocessors, " + std::to_string(device.totalGlobalMem >> 30) + " GiB)";
}

// Calls `visit(properties)` for each device.
template <typename Visit>
void for_each_device(Visit visit) {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) return;
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp device;
        if (cudaGetDeviceProperties(&device, i) == cudaSuccess) visit(device);
    }
}

}  // namespace

std::string unavailable_reason() {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        return "no NVIDIA driver on this machine: install one that supports CUDA " +
               version(runtime) + " (in a container, start it with the GPUs passed through)";
    }
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver) {
        return "the NVIDIA driver supports CUDA up to " + version(driver) +
               ", but this build needs " + version(runtime) +
               ": update the driver, or build zfcuda with an older CUDA toolkit";
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
        return "the driver finds no NVIDIA GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES";
    }
    if (error != cudaSuccess) {
        return std::string("the driver fails: ") + cudaGetErrorString(error) + ": check nvidia-smi";
    }
    bool usable = false;
    std::string devices;
    for_each_device([&](const cudaDeviceProp& device) {
        usable = usable || device.major >= kLeastMajor;
        devices += (devices.empty() ? "" : ", ") + describe(device);
    });
    if (usable) return "";
    return "no device of compute capability " + std::to_string(kLeastMajor) +
           ".0 (Ampere) or newer here: found " + devices;
}

std::string description() {
    std::string devices;
    for_each_device([&](const cudaDeviceProp& device) {
        devices += (devices.empty() ? "" : ", ") + describe(device);
    });
    return devices;
}

bool can_run_wgmma() {
#if defined(ZFCUDA_SM90A)
    return simt::device_attribute<cudaDevAttrComputeCapabilityMajor>() == 9 &&
           simt::device_attribute<cudaDevAttrComputeCapabilityMinor>() == 0;
#else
    return false;
#endif
}

std::vector<std::string> gpu_names() {
    std::vector<std::string> names;
    for_each_device([&](const cudaDeviceProp& device) { names.emplace_back(device.name); });
    return names;
}

std::string driver_version() {
    int number = 0;
    cudaDriverGetVersion(&number);
    return version(number);
}

#else

std::string unavailable_reason() {
    return "";
}

std::string description() {
    return "the CUDA kernels, run on the CPU by the SIMT emulator";
}

bool can_run_wgmma() {
    return true;
}

std::vector<std::string> gpu_names() {
    return {"emulator"};
}

std::string driver_version() {
    return "";
}

#endif

int multiprocessors() {
    return simt::multiprocessors();
}

}  // namespace zfcuda
