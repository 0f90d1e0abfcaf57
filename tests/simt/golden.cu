// Each wrapper of the dialect on its own. `in` and `out` hold 32-bit words; unless a kernel says
// more, word w of a lane is at 32 w + lane.
#include "golden.h"

#include <cstring>

#include "golden_tensor.cuh"
#include "simt/simt.h"

namespace golden {
namespace {

constexpr unsigned kAll = 0xffffffffu;

template <typename To, typename From>
__device__ To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

// Writes the words of a lane one after the other.
class Out {
  public:
    __device__ explicit Out(Word* out) : at_(out + threadIdx.x) {}
    __device__ void operator()(Word word) {
        *at_ = word;
        at_ += 32;
    }
    __device__ void operator()(float value) { (*this)(bits_as<Word>(value)); }
    __device__ void operator()(int value) { (*this)(static_cast<Word>(value)); }

  private:
    Word* at_;
};

// ---- Tensor cores: a (4 words), b (2), d (4) to d (4) -------------------------------------------

enum class Multiply { kTf32, kBf16, kFp16 };

template <Multiply How>
__global__ void mma_kernel(const Word* in, Word* out) {
    const Word* mine = in + threadIdx.x;
    Word a[4], b[2];
    float d[4];
    for (int i = 0; i < 4; ++i)
        a[i] = mine[32 * i];
    for (int i = 0; i < 2; ++i)
        b[i] = mine[32 * (4 + i)];
    for (int i = 0; i < 4; ++i)
        d[i] = bits_as<float>(mine[32 * (6 + i)]);
    if constexpr (How == Multiply::kTf32) simt::mma_m16n8k8_tf32(d, a, b);
    if constexpr (How == Multiply::kBf16) simt::mma_m16n8k16_bf16(d, a, b);
    if constexpr (How == Multiply::kFp16) simt::mma_m16n8k16_fp16(d, a, b);
    Out write(out);
    for (int i = 0; i < 4; ++i)
        write(d[i]);
}

// 32 rows of 4 words, then the row that each lane names.
template <bool Transposed>
__global__ void ldmatrix_kernel(const Word* in, Word* out) {
    SIMT_SHARED(Word, rows, 128);
    for (int i = threadIdx.x; i < 128; i += 32)
        rows[i] = in[i];
    __syncwarp();
    const Word* row = rows + 4 * (in[128 + threadIdx.x] % 32);
    Word r[4];
    if constexpr (Transposed) {
        simt::load_matrix_x4_trans(r, row);
    } else {
        simt::load_matrix_x4(r, row);
    }
    Out write(out);
    for (int i = 0; i < 4; ++i)
        write(r[i]);
}

// ---- Products of a warpgroup, of 128 threads ----------------------------------------------------

// Eight words: of A, then of B, the swizzle, the leading and the stride bytes and where the operand
// begins in shared memory. Four words of A and N / 2 of d for each thread, a word that says whether
// d counts, and shared memory. To d.
constexpr int kWarpgroup = 128, kOperandWords = 4096;

enum class Operand { kKMajor, kMNMajor, kRegisters };

__device__ std::uint64_t descriptor_of(const Word* memory, const Word* words) {
    return simt::matrix_descriptor(memory + words[3] / 4, words[1], words[2],
                                   static_cast<simt::Swizzle>(words[0]));
}

template <bool Tf32, int N, Operand A, Operand B>
__global__ void wgmma_kernel(const Word* in, Word* out) {
    auto* memory = simt::dynamic_shared<Word>();
    const Word* registers = in + 8 + threadIdx.x;
    const Word* accumulators = registers + 4 * kWarpgroup;
    const Word* rest = in + 8 + (4 + N / 2) * kWarpgroup;
    for (int i = threadIdx.x; i < kOperandWords; i += kWarpgroup)
        memory[i] = rest[1 + i];
    simt::fence_proxy_async();
    __syncthreads();
    Word a[4];
    float d[N / 2];
    for (int i = 0; i < 4; ++i)
        a[i] = registers[i * kWarpgroup];
#pragma unroll
    for (int i = 0; i < N / 2; ++i)
        d[i] = bits_as<float>(accumulators[i * kWarpgroup]);
    const std::uint64_t left = descriptor_of(memory, in), right = descriptor_of(memory, in + 4);
    constexpr auto kA = A == Operand::kMNMajor ? simt::Major::kMN : simt::Major::kK;
    constexpr auto kB = B == Operand::kMNMajor ? simt::Major::kMN : simt::Major::kK;
    simt::warpgroup_arrive();
    if constexpr (Tf32 && A == Operand::kRegisters) {
        simt::wgmma_tf32<N>(d, a, right, rest[0] != 0);
    } else if constexpr (Tf32) {
        simt::wgmma_tf32<N>(d, left, right, rest[0] != 0);
    } else if constexpr (A == Operand::kRegisters) {
        simt::wgmma_bf16<N, kB>(d, a, right, rest[0] != 0);
    } else {
        simt::wgmma_bf16<N, kA, kB>(d, left, right, rest[0] != 0);
    }
    simt::warpgroup_commit();
    simt::warpgroup_wait<0>();
#pragma unroll
    for (int i = 0; i < N / 2; ++i)
        out[i * kWarpgroup + threadIdx.x] = bits_as<Word>(d[i]);
}

// ---- Shuffles and votes: a value and a lane -----------------------------------------------------

__global__ void shuffle_kernel(const Word* in, Word* out) {
    const int lane = threadIdx.x;
    const Word value = in[lane];
    const int other = static_cast<int>(in[32 + lane]), near = other & 31;
    Out write(out);
    write(__shfl_sync(kAll, value, other));
    write(__shfl_sync(kAll, value, other, 8));
    write(__shfl_up_sync(kAll, value, near));
    write(__shfl_up_sync(kAll, value, near, 16));
    write(__shfl_down_sync(kAll, value, near));
    write(__shfl_down_sync(kAll, value, near, 16));
    write(__shfl_xor_sync(kAll, value, near));
    write(__shfl_xor_sync(kAll, value, near, 8));
    const unsigned long long pair = static_cast<unsigned long long>(~value) << 32 | value;
    const unsigned long long far = __shfl_sync(kAll, pair, other);
    write(static_cast<Word>(far));
    write(static_cast<Word>(far >> 32));
    const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    write(__shfl_sync(half, value, (lane & 16) | (other & 15)));
}

__global__ void vote_kernel(const Word* in, Word* out) {
    const Word value = in[threadIdx.x];
    const int number = static_cast<int>(value), few = number & 3;
    Out write(out);
    write(__ballot_sync(kAll, number & 1));
    write(__any_sync(kAll, few == 3) != 0);
    write(__all_sync(kAll, few != 3) != 0);
    write(__match_any_sync(kAll, few));
    write(__syncthreads_count(few == 0));
    write(__syncthreads_and(few != 2) != 0);
    write(__syncthreads_or(few == 2) != 0);
    write(__reduce_add_sync(kAll, number));
    write(__reduce_add_sync(kAll, value));
    write(__reduce_min_sync(kAll, number));
    write(__reduce_min_sync(kAll, value));
    write(__reduce_max_sync(kAll, number));
    write(__reduce_max_sync(kAll, value));
    write(__reduce_and_sync(kAll, value | 0xff00u));
    write(__reduce_or_sync(kAll, value & 0xff00u));
    write(__reduce_xor_sync(kAll, value));
}

// ---- cp.async: 128 words, then flags of each lane; copies of 16, 8 and 4 bytes ------------------

__global__ void copy_async_kernel(const Word* in, Word* out) {
    SIMT_SHARED(Word, tile, 128 + 64 + 32);
    const int lane = threadIdx.x;
    const Word valid = in[128 + lane];
    for (int i = lane; i < 128 + 64 + 32; i += 32)
        tile[i] = 0xdeadbeefu;
    __syncwarp();
    simt::copy_async<16>(tile + 4 * lane, in + 4 * lane, (valid & 1) != 0);
    simt::copy_async_commit();
    simt::copy_async<8>(tile + 128 + 2 * lane, in + 2 * lane, (valid & 2) != 0);
    simt::copy_async<4>(tile + 192 + lane, in + lane, (valid & 4) != 0);
    simt::copy_async_commit();
    simt::copy_async_wait<1>();
    for (int i = 0; i < 4; ++i)  // its own, of the first group
        out[4 * lane + i] = tile[4 * lane + i];
    simt::copy_async_wait<0>();
    __syncwarp();
    for (int i = 128 + lane; i < 128 + 64 + 32; i += 32)
        out[i] = tile[i];
}

// ---- Atomics: a value; what all lanes did to one word, and what each found in its own -----------

constexpr int kShared = 11;

template <bool Global>
__global__ void atomics_kernel(const Word* in, Word* out) {
    SIMT_SHARED(Word, local, kShared + 3 * 32);
    Word* words = Global ? out : local;
    const int lane = threadIdx.x;
    const Word value = in[lane];
    const int number = static_cast<int>(value);
    for (int i = lane; i < kShared + 3 * 32; i += 32)
        words[i] = i == 10 ? 0 : i < kShared ? in[32 + i] : in[(i - kShared) % 64];
    __syncthreads();
    atomicAdd(words, value);
    atomicSub(words + 1, value);
    atomicMin(reinterpret_cast<int*>(words + 2), number);
    atomicMax(reinterpret_cast<int*>(words + 3), number);
    atomicMin(words + 4, value);
    atomicMax(words + 5, value);
    atomicAnd(words + 6, value | 0xffffu);
    atomicOr(words + 7, value & 0xffffu);
    atomicXor(words + 8, value);
    atomicInc(words + 9, 20u);
    atomicAdd(reinterpret_cast<float*>(words + 10), static_cast<float>(number % 1000));
    Word* own = words + kShared + lane;
    const Word exchanged = atomicExch(own, value + 1);
    const Word compared = atomicCAS(own + 32, lane % 2 ? in[32 + lane] : ~in[32 + lane], value);
    const Word decreased = atomicDec(own + 64, lane % 2 ? 0xffffffffu : 7u);
    __syncthreads();
    if (!Global) {
        for (int i = lane; i < kShared + 3 * 32; i += 32)
            out[i] = local[i];
    }
    Word* found = out + kShared + 3 * 32 + lane;
    found[0] = exchanged;
    found[32] = compared;
    found[64] = decreased;
}

// ---- Numbers ------------------------------------------------------------------------------------

// A float, and two 16-bit floats in one word.
template <typename Half>
__global__ void half_kernel(const Word* in, Word* out) {
    const float x = bits_as<float>(in[threadIdx.x]);
    const Word pair = in[32 + threadIdx.x];
    const auto low = static_cast<unsigned short>(pair),
               high = static_cast<unsigned short>(pair >> 16);
    const Half a = bits_as<Half>(low), b = bits_as<Half>(high);
    const auto bits = [](Half h) { return static_cast<Word>(bits_as<unsigned short>(h)); };
    Out write(out);
    write(bits(Half(x)));
    write(static_cast<float>(a));
    write(bits(a + b));
    write(bits(a - b));
    write(bits(a * b));
    write(bits(a / b));
}

__global__ void to_tf32_kernel(const Word* in, Word* out) {
    Out write(out);
    write(simt::to_tf32(bits_as<float>(in[threadIdx.x])));
}

__global__ void floats_kernel(const Word* in, Word* out) {
    const float x = bits_as<float>(in[threadIdx.x]), y = bits_as<float>(in[32 + threadIdx.x]);
    Out write(out);
    write(simt::max_nan(x, y));
    write(simt::approximate_sqrt(x));
    const Word a = bits_as<Word>(x), b = bits_as<Word>(y);
    write(simt::add_bf16x2(a, b));
    write(simt::spread_signs<0>(a));
    write(simt::spread_signs<1>(a));
    write(simt::spread_signs<2>(a));
}

__global__ void integers_kernel(const Word* in, Word* out) {
    const Word a = in[threadIdx.x], b = in[32 + threadIdx.x];
    Out write(out);
    write(__popc(a));
    write(__clz(static_cast<int>(a)));
    write(__ffs(static_cast<int>(a)));
    write(__brev(a));
    write(__umulhi(a, b));
    write(__mulhi(static_cast<int>(a), static_cast<int>(b)));
    write(__funnelshift_l(a, b, a));
    write(__funnelshift_r(a, b, b));
    write(__byte_perm(a, b, a & 0x7777u));
    const float x = bits_as<float>(a);
    write(__float2int_rn(x));
    write(__float2int_rz(x));
    write(__float2int_rd(x));
    write(__float2int_ru(x));
    write(__int2float_rn(static_cast<int>(a)));
    write(__uint2float_rn(a));
}

// ---- The same call on either --------------------------------------------------------------------

#if defined(__CUDACC__)

class DeviceWords {
  public:
    explicit DeviceWords(std::size_t words) {
        simt::check(cudaMalloc(&words_, words * sizeof(Word)), "cudaMalloc");
    }
    ~DeviceWords() { cudaFree(words_); }
    DeviceWords(const DeviceWords&) = delete;
    DeviceWords& operator=(const DeviceWords&) = delete;
    Word* get() const { return words_; }

  private:
    Word* words_ = nullptr;
};

// `launch` gets pointers to the words of the input and of the output.
template <typename Launch>
void with_arrays(const Words& input, Words& output, Launch launch) {
    const DeviceWords in(input.size()), out(output.size());
    simt::check(cudaMemcpy(in.get(), input.data(), input.size() * sizeof(Word), cudaMemcpyDefault),
                "cudaMemcpy");
    launch(in.get(), out.get());
    simt::check(
        cudaMemcpy(output.data(), out.get(), output.size() * sizeof(Word), cudaMemcpyDefault),
        "cudaMemcpy");
}

#else

template <typename Launch>
void with_arrays(const Words& input, Words& output, Launch launch) {
    std::vector<uint4> aligned((input.size() + 3) / 4);  // as copies want it
    Word* in = reinterpret_cast<Word*>(aligned.data());
    std::copy(input.begin(), input.end(), in);
    launch(in, output.data());
}

#endif

template <auto Launch, int Outputs>
Words run(const Words& input) {
    Words output(Outputs);
    with_arrays(input, output, Launch);
    return output;
}

template <auto Kernel, int Threads, int SharedWords>
void launch(const Word* in, Word* out) {
    simt::launch<Kernel>(1, Threads, SharedWords * sizeof(Word), nullptr, in, out);
}

template <auto Kernel, int Inputs, int Outputs, int Threads = 32, int SharedWords = 0>
Case make(const char* name) {
    return {name, Inputs, Outputs, run<launch<Kernel, Threads, SharedWords>, Outputs>};
}

// A launch of its own, with a tensor map of the input or output.
template <auto Launch, int Inputs, int Outputs>
Case make_tensor(const char* name) {
    return {name, Inputs, Outputs, run<Launch, Outputs>};
}

template <bool Tf32, int N, Operand A, Operand B>
Case make_wgmma(const char* name) {
    return make<wgmma_kernel<Tf32, N, A, B>, 8 + (4 + N / 2) * kWarpgroup + 1 + kOperandWords,
                N / 2 * kWarpgroup, kWarpgroup, kOperandWords>(name);
}

}  // namespace

std::string unavailable_reason() {
#if defined(__CUDACC__)
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    if (devices == 0) return "no GPU";
#endif
    return "";
}

std::vector<Case> cases() {
    constexpr int kLanes = 32, kAtomicWords = kShared + 6 * 32;
    constexpr Operand kK = Operand::kKMajor, kMN = Operand::kMNMajor, kR = Operand::kRegisters;
    using simt::Swizzle;
    return {
        make_tensor<tensor_load<20, Swizzle::kNone>, Plane::kWords, 20 * 20>("tensor_load_none"),
        make_tensor<tensor_load<8, Swizzle::k32>, Plane::kWords, 8 * 20>("tensor_load_32"),
        make_tensor<tensor_load<16, Swizzle::k64>, Plane::kWords, 16 * 20>("tensor_load_64"),
        make_tensor<tensor_load<32, Swizzle::k128>, Plane::kWords, 32 * 20>("tensor_load_128"),
        make_tensor<tensor_load<32, Swizzle::k128, simt::TensorType::kTf32>, Plane::kWords,
                    32 * 20>("tensor_load_tf32_128"),
        make_tensor<tensor_steps, kPlaceWords + 6 * 8 * 40, 3 * 4 * 8>("tensor_steps"),
        make_tensor<tensor_im2col, Im2col::kWords, Im2col::kPixels * Im2col::kChannels>(
            "tensor_im2col"),
        make_tensor<tensor_store, kPlaceWords + 6 * 8 * 32, 20 * 40>("tensor_store"),
        make_tensor<barriers, kPlaceWords + 7 * 64, 64>("barriers"),
        make<mma_kernel<Multiply::kTf32>, 10 * kLanes, 4 * kLanes>("mma_tf32"),
        make<mma_kernel<Multiply::kBf16>, 10 * kLanes, 4 * kLanes>("mma_bf16"),
        make<mma_kernel<Multiply::kFp16>, 10 * kLanes, 4 * kLanes>("mma_fp16"),
        make_wgmma<false, 64, kK, kK>("wgmma_bf16_64_k_k"),
        make_wgmma<false, 96, kK, kMN>("wgmma_bf16_96_k_mn"),
        make_wgmma<false, 128, kMN, kK>("wgmma_bf16_128_mn_k"),
        make_wgmma<false, 192, kK, kK>("wgmma_bf16_192_k_k"),
        make_wgmma<false, 128, kMN, kMN>("wgmma_bf16_128_mn_mn"),
        make_wgmma<false, 192, kMN, kMN>("wgmma_bf16_192_mn_mn"),
        make_wgmma<false, 256, kMN, kMN>("wgmma_bf16_256_mn_mn"),
        make_wgmma<false, 64, kR, kK>("wgmma_bf16_64_r_k"),
        make_wgmma<false, 96, kR, kMN>("wgmma_bf16_96_r_mn"),
        make_wgmma<true, 64, kK, kK>("wgmma_tf32_64_k_k"),
        make_wgmma<true, 128, kK, kK>("wgmma_tf32_128_k_k"),
        make_wgmma<true, 192, kK, kK>("wgmma_tf32_192_k_k"),
        make_wgmma<true, 256, kK, kK>("wgmma_tf32_256_k_k"),
        make_wgmma<true, 256, kR, kK>("wgmma_tf32_256_r_k"),
        make<ldmatrix_kernel<false>, 5 * kLanes, 4 * kLanes>("ldmatrix"),
        make<ldmatrix_kernel<true>, 5 * kLanes, 4 * kLanes>("ldmatrix_trans"),
        make<shuffle_kernel, 2 * kLanes, 11 * kLanes>("shuffle"),
        make<vote_kernel, kLanes, 16 * kLanes>("vote"),
        make<copy_async_kernel, 5 * kLanes, 7 * kLanes>("copy_async"),
        make<atomics_kernel<false>, 2 * kLanes, kAtomicWords>("atomics_shared"),
        make<atomics_kernel<true>, 2 * kLanes, kAtomicWords>("atomics_global"),
        make<half_kernel<__half>, 2 * kLanes, 6 * kLanes>("fp16"),
        make<half_kernel<__nv_bfloat16>, 2 * kLanes, 6 * kLanes>("bf16"),
        make<to_tf32_kernel, kLanes, kLanes>("to_tf32"),
        make<floats_kernel, 2 * kLanes, 6 * kLanes>("floats"),
        make<integers_kernel, 2 * kLanes, 15 * kLanes>("integers"),
    };
}

}  // namespace golden
