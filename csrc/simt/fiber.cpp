#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#if defined(SIMT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#define SIMT_USE_UCONTEXT 1
#include <ucontext.h>
#endif

namespace simt {
namespace {

#if defined(SIMT_ADDRESS_SANITIZER)
constexpr std::size_t kStackBytes = 256 * 1024;  // its frames are several times larger
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif
constexpr std::size_t kMaxStacks = 1024;  // threads in a block

std::size_t page_bytes() {
    static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

#if defined(SIMT_USE_UCONTEXT)

void jump(void*& from, void* to) {
    ucontext_t here;
    from = &here;
    swapcontext(&here, static_cast<ucontext_t*>(to));
}

#else

// Saves the registers that a call preserves on the stack, and the stack pointer in *from.
__attribute__((naked, noinline)) void jump(void*& /*from: rdi*/, void* /*to: rsi*/) {
    __asm__(
        "pushq %rbp\n"
        "pushq %rbx\n"
        "pushq %r12\n"
        "pushq %r13\n"
        "pushq %r14\n"
        "pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n"
        "popq %r14\n"
        "popq %r13\n"
        "popq %r12\n"
        "popq %rbx\n"
        "popq %rbp\n"
        "ret\n");
}

#endif

#if defined(SIMT_ADDRESS_SANITIZER)
thread_local Context* left = nullptr;     // the context that was just switched away from
thread_local Context* arrived = nullptr;  // the one that was switched to
#endif

}  // namespace

void prepare(Context& context, Stack stack, void (*entry)()) {
    context.stack = stack;
    context.fake_stack = nullptr;
#if defined(SIMT_USE_UCONTEXT)
    // The ucontext lives at the low end of the stack that it describes.
    ucontext_t* state = new (stack.bottom) ucontext_t;
    getcontext(state);
    state->uc_stack.ss_sp = stack.bottom + sizeof(ucontext_t);
    state->uc_stack.ss_size = stack.size - sizeof(ucontext_t);
    state->uc_link = nullptr;
    makecontext(state, entry, 0);
    context.state = state;
#else
    // As if `jump` had been called from the first instruction of `entry`, which was called from
    // address 0.
    void** top = reinterpret_cast<void**>(stack.bottom + stack.size);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i)
        *--top = nullptr;
    context.state = top;
#endif
}

void switch_context(Context& from, Context& to) {
#if defined(SIMT_ADDRESS_SANITIZER)
    left = &from;
    arrived = &to;
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack.bottom, to.stack.size);
    jump(from.state, to.state);
    entered_context();
#else
    jump(from.state, to.state);
#endif
}

void leave_context(Context& from, Context& to) {
#if defined(SIMT_ADDRESS_SANITIZER)
    left = nullptr;
    arrived = &to;
    __sanitizer_start_switch_fiber(nullptr, to.stack.bottom, to.stack.size);
#endif
    jump(from.state, to.state);
    std::abort();
}

void entered_context() {
#if defined(SIMT_ADDRESS_SANITIZER)
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(arrived->fake_stack, &bottom, &size);
    // So the host thread's own stack becomes known.
    if (left && !left->stack.bottom)
        left->stack = {static_cast<unsigned char*>(const_cast<void*>(bottom)), size};
#endif
}

StackPool::~StackPool() {
    if (memory_) munmap(memory_, bytes_);
}

Stack StackPool::take() {
    if (free_.empty()) {
        const std::size_t stride = kStackBytes + page_bytes();
        if (!memory_) {
            void* memory = mmap(nullptr, kMaxStacks * stride, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED) throw std::bad_alloc();
            memory_ = static_cast<unsigned char*>(memory);
            bytes_ = kMaxStacks * stride;
            free_.reserve(kMaxStacks);
        }
        if (made_ == kMaxStacks) throw std::bad_alloc();
        unsigned char* guard = memory_ + made_ * stride;
        mprotect(guard, page_bytes(), PROT_NONE);
        // Tops at different offsets in their pages: else all hot frames would share a few cache
        // sets.
        const std::size_t colour = made_ % 12 * 320;
        free_.push_back({guard + page_bytes(), (kStackBytes - colour) / 64 * 64});
        ++made_;
    }
    const Stack stack = free_.back();
    free_.pop_back();
    return stack;
}

void StackPool::take_all_back() {
    free_.clear();
    const std::size_t stride = kStackBytes + page_bytes();
    for (std::size_t i = made_; i-- > 0;) {
        const Stack stack{memory_ + i * stride + page_bytes(),
                          (kStackBytes - i % 12 * 320) / 64 * 64};
#if defined(SIMT_ADDRESS_SANITIZER)
        __asan_unpoison_memory_region(stack.bottom, stack.size);
#endif
        free_.push_back(stack);
    }
}

}  // namespace simt
