#include "shared_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "fiber.h"

#if defined(SIMT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace simt {
namespace {

constexpr int kPoison = 0xff;
constexpr unsigned char kZoneByte = 0xa5;

std::size_t round_up(std::size_t value, std::size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

SharedMemory::SharedMemory() {
    void* memory = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<unsigned char*>(memory);
}

SharedMemory::~SharedMemory() {
#if defined(SIMT_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(memory_, kArenaBytes);
#endif
    munmap(memory_, kArenaBytes);
}

void SharedMemory::begin_block(std::size_t dynamic_bytes) {
#if defined(SIMT_ADDRESS_SANITIZER)
    __asan_poison_memory_region(memory_, kArenaBytes);
#endif
    arrays_.clear();
    static_bytes_ = 0;
    top_ = kRedZone;
    place(nullptr, dynamic_bytes);
}

void SharedMemory::place(const SharedArray* key, std::size_t bytes) {
    const std::size_t offset = round_up(top_, key ? kAlignment : kDynamicAlignment);
    top_ = offset + bytes + kRedZone;
    if (top_ > kArenaBytes) throw std::bad_alloc();
    arrays_.push_back({key, offset, bytes});
#if defined(SIMT_ADDRESS_SANITIZER)
    __asan_unpoison_memory_region(memory_ + offset, bytes);
#else
    std::memset(memory_ + offset + bytes, kZoneByte, kRedZone);
    std::memset(memory_ + offset - kRedZone / 2, kZoneByte, kRedZone / 2);
#endif
    std::memset(memory_ + offset, kPoison, bytes);
}

void* SharedMemory::find(const SharedArray* key) const {
    for (const Array& array : arrays_) {
        if (array.key == key) return memory_ + array.offset;
    }
    return nullptr;
}

void* SharedMemory::add(const SharedArray* key) {
    static_bytes_ += key->bytes;
    place(key, key->bytes);
    return memory_ + arrays_.back().offset;
}

std::string SharedMemory::name_of(std::uintptr_t address) const {
    const std::size_t offset = address - this->address();
    for (const Array& array : arrays_) {
        if (offset >= array.offset && offset < array.offset + array.bytes)
            return "byte " + std::to_string(offset - array.offset) + " of shared array `" +
                   array.name() + "`";
    }
    return "";
}

std::string SharedMemory::damage() const {
#if !defined(SIMT_ADDRESS_SANITIZER)  // which sees the access itself
    for (const Array& array : arrays_) {
        const unsigned char* end = memory_ + array.offset + array.bytes;
        for (std::size_t i = 0; i < kRedZone; ++i) {
            if (end[i] == kZoneByte) continue;
            return std::string("out of bounds: shared array `") + array.name() + "` of " +
                   std::to_string(array.bytes) + " bytes was written to at byte " +
                   std::to_string(array.bytes + i);
        }
        const unsigned char* begin = memory_ + array.offset;
        for (std::size_t i = 1; i <= kRedZone / 2; ++i) {
            if (begin[-static_cast<std::ptrdiff_t>(i)] == kZoneByte) continue;
            return std::string("out of bounds: shared array `") + array.name() +
                   "` was written to at byte -" + std::to_string(i);
        }
    }
#endif
    return "";
}

}  // namespace simt
