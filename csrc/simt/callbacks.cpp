// Where the instrumentation of the compiler arrives.
//
// -fsanitize=alignment,bounds,null: before a misaligned, null or out-of-range access of known type,
// in every build. -fsanitize=thread: before each access to memory, in builds that check them. The
// modules are not linked to the sanitizers' own libraries: these functions take their place.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "block.h"
#include "checker.h"

#if defined(SIMT_CHECKED)

namespace {

using simt::Checker;

inline void on_access(void* address, std::size_t bytes, Checker::Kind kind, void* caller) {
    simt::Block* block = simt::Block::current();
    if (block) block->access(address, bytes, kind, caller);
}

}  // namespace

#define SIMT_CALLBACK(name, bytes, kind)                                       \
    extern "C" void name(void* address) {                                      \
        on_access(address, bytes, Checker::kind, __builtin_return_address(0)); \
    }
SIMT_CALLBACK(__tsan_read1, 1, kRead)
SIMT_CALLBACK(__tsan_read2, 2, kRead)
SIMT_CALLBACK(__tsan_read4, 4, kRead)
SIMT_CALLBACK(__tsan_read8, 8, kRead)
SIMT_CALLBACK(__tsan_read16, 16, kRead)
SIMT_CALLBACK(__tsan_write1, 1, kWrite)
SIMT_CALLBACK(__tsan_write2, 2, kWrite)
SIMT_CALLBACK(__tsan_write4, 4, kWrite)
SIMT_CALLBACK(__tsan_write8, 8, kWrite)
SIMT_CALLBACK(__tsan_write16, 16, kWrite)
SIMT_CALLBACK(__tsan_unaligned_read2, 2, kRead)
SIMT_CALLBACK(__tsan_unaligned_read4, 4, kRead)
SIMT_CALLBACK(__tsan_unaligned_read8, 8, kRead)
SIMT_CALLBACK(__tsan_unaligned_read16, 16, kRead)
SIMT_CALLBACK(__tsan_unaligned_write2, 2, kWrite)
SIMT_CALLBACK(__tsan_unaligned_write4, 4, kWrite)
SIMT_CALLBACK(__tsan_unaligned_write8, 8, kWrite)
SIMT_CALLBACK(__tsan_unaligned_write16, 16, kWrite)
SIMT_CALLBACK(__tsan_volatile_read1, 1, kRead)
SIMT_CALLBACK(__tsan_volatile_read2, 2, kRead)
SIMT_CALLBACK(__tsan_volatile_read4, 4, kRead)
SIMT_CALLBACK(__tsan_volatile_read8, 8, kRead)
SIMT_CALLBACK(__tsan_volatile_write1, 1, kWrite)
SIMT_CALLBACK(__tsan_volatile_write2, 2, kWrite)
SIMT_CALLBACK(__tsan_volatile_write4, 4, kWrite)
SIMT_CALLBACK(__tsan_volatile_write8, 8, kWrite)
#undef SIMT_CALLBACK

extern "C" void __tsan_read_range(void* address, std::size_t bytes) {
    on_access(address, bytes, Checker::kRead, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, std::size_t bytes) {
    on_access(address, bytes, Checker::kWrite, __builtin_return_address(0));
}
// clang's, for what copies and fills memory in kernels.
extern "C" void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
    on_access(const_cast<void*>(from), bytes, Checker::kRead, __builtin_return_address(0));
    on_access(to, bytes, Checker::kWrite, __builtin_return_address(0));
    return std::memcpy(to, from, bytes);
}
extern "C" void* __tsan_memset(void* to, int value, std::size_t bytes) {
    on_access(to, bytes, Checker::kWrite, __builtin_return_address(0));
    return std::memset(to, value, bytes);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void*) {}
extern "C" void __tsan_vptr_update(void*, void*) {}
extern "C" void __tsan_vptr_read(void*) {}

#endif  // SIMT_CHECKED

#if !defined(SIMT_ADDRESS_SANITIZER)  // which comes with its own

namespace {

// As the compiler lays out what it passes.
struct SourceLocation {
    const char* file;
    std::uint32_t line, column;
};
struct TypeDescriptor {
    std::uint16_t kind, information;
    char name[1];
};
struct TypeMismatch {
    SourceLocation location;
    const TypeDescriptor* type;
    unsigned char log_alignment, access;
};
struct OutOfBounds {
    SourceLocation location;
    const TypeDescriptor* array;
    const TypeDescriptor* index;
};

[[noreturn]] void report(const std::string& what, const SourceLocation& location) {
    if (simt::Block* block = simt::Block::current())
        block->fail(what, simt::Site{location.file, static_cast<int>(location.line)});
    std::fprintf(stderr, "%s:%u: %s, outside any kernel\n", location.file, location.line,
                 what.c_str());
    std::abort();
}

}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* data, std::uintptr_t address) {
    const std::string type = data->type->name;
    if (address == 0) report("null pointer: an access to " + type, data->location);
    report("misaligned address: an access to " + type + " needs a multiple of " +
               std::to_string(1u << data->log_alignment) + " bytes",
           data->location);
}

extern "C" void __ubsan_handle_out_of_bounds(OutOfBounds* data, std::uint64_t index) {
    report("out of bounds: index " + std::to_string(static_cast<std::int64_t>(index)) + " of " +
               data->array->name,
           data->location);
}

#endif
