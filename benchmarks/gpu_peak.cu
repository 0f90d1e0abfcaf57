// What one instruction of this project's kernels can do at most, each compiled on the machine by NVRTC (gpu_device.py):
// mma.sync, without a load, and reads of L2.

// 8 warps a block, each with four independent sums of a 16 x 8 tile. Writes nothing, but the compiler does not know.
extern "C" __global__ void mma_bf16(int rounds, float never, float* out) {
    float sum[4][4] = {};
    const unsigned a = threadIdx.x * 0x3f803f80u, b = 0x3f803f80u;
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                "{%8,%9}, "
                "{%0,%1,%2,%3};"
                : "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])
                : "r"(a), "r"(a), "r"(a), "r"(a), "r"(b), "r"(b));
    for (int j = 0; j < 4; ++j)
        if (sum[j][0] == never) out[threadIdx.x] = sum[j][1] + sum[j][2] + sum[j][3];
}

extern "C" __global__ void mma_tf32(int rounds, float never, float* out) {
    float sum[4][4] = {};
    const unsigned a = __float_as_uint(threadIdx.x * 0.5f), b = 0x3f800000u;
    for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            asm volatile(
                "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                "{%8,%9}, "
                "{%0,%1,%2,%3};"
                : "+f"(sum[j][0]), "+f"(sum[j][1]), "+f"(sum[j][2]), "+f"(sum[j][3])
                : "r"(a), "r"(a), "r"(a), "r"(a), "r"(b), "r"(b));
    for (int j = 0; j < 4; ++j)
        if (sum[j][0] == never) out[threadIdx.x] = sum[j][1] + sum[j][2] + sum[j][3];
}

// Every block reads all `count` vectors again and again, past L1, each from another place on.
extern "C" __global__ void read_l2(int rounds, float never, const float4* source, int count,
                                   float* out) {
    float sum = 0;
    int at = (blockIdx.x * 1031 + threadIdx.x) % count;
    for (int i = 0; i < rounds; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const float4 v = __ldcg(source + at);
            sum += v.x + v.y + v.z + v.w;
            at += blockDim.x;
            at -= at >= count ? count : 0;
        }
    }
    if (sum == never) out[threadIdx.x] = sum;
}
