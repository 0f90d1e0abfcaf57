// Fibers: the stacks and the context switch with which one host thread runs all threads of a block.
//
// On x86-64 a switch saves six registers and costs about 10 ns with what surrounds it; elsewhere
// ucontext does it (about 200 ns, because it also saves the signal mask with a system call).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ADDRESS_SANITIZER 1
#endif
#endif

namespace simt {

struct Stack {
    unsigned char* bottom = nullptr;
    std::size_t size = 0;
};

// Where a fiber, or the host thread, goes on when it is switched to.
struct Context {
    void* state = nullptr;  // x86-64: its stack pointer; else: its ucontext_t. Null: not running
    Stack stack;            // empty for the host thread until the first switch away from it
    void* fake_stack = nullptr;  // AddressSanitizer's
};

// Makes `context` start `entry` on `stack` when it is switched to. `entry` must never return.
void prepare(Context& context, Stack stack, void (*entry)());

// Goes on in `to`; returns when somebody switches back to `from`.
void switch_context(Context& from, Context& to);

// The same, and `from` will never go on.
[[noreturn]] void leave_context(Context& from, Context& to);

// The first thing that `entry` calls.
void entered_context();

// Gives out stacks with a guard page below each. One per host thread.
class StackPool {
  public:
    StackPool() = default;
    ~StackPool();
    StackPool(const StackPool&) = delete;
    StackPool& operator=(const StackPool&) = delete;

    Stack take();
    void give_back(Stack stack) { free_.push_back(stack); }
    // After fibers were abandoned: every stack is free again.
    void take_all_back();
    // Whether the address lies in one of these stacks.
    bool contains(std::uintptr_t address) const {
        return address - reinterpret_cast<std::uintptr_t>(memory_) < bytes_;
    }

  private:
    unsigned char* memory_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t made_ = 0;
    std::vector<Stack> free_;
};

}  // namespace simt
