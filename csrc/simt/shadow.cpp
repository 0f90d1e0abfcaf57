#include "shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <stdexcept>

#include "global_memory.h"

namespace simt {

Shadow::Shadow(std::uintptr_t begin, std::size_t bytes) : begin_(begin), bytes_(bytes) {
    mapped_ = ((begin + bytes + 3) / 4 - begin / 4 + 1) * sizeof(Cell);
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    cells_ = static_cast<Cell*>(memory);
}

Shadow::~Shadow() {
    munmap(cells_, mapped_);
}

std::vector<std::unique_ptr<GlobalArray>>& global_arrays() {
    static std::vector<std::unique_ptr<GlobalArray>> instance;
    return instance;
}

bool checks_accesses() {
#if defined(SIMT_CHECKED)
    return true;
#else
    return false;
#endif
}

void register_array(const void* address, std::size_t bytes, bool written, const std::string& name) {
    if (bytes == 0 || !checks_accesses()) return;
    const auto begin = reinterpret_cast<std::uintptr_t>(address);
    auto& arrays = global_arrays();
    for (const auto& array : arrays) {
        if (begin >= array->shadow.end() || array->shadow.begin() >= begin + bytes) continue;
        if (begin >= array->shadow.begin() && begin + bytes <= array->shadow.end()) {
            array->written |= written;  // the same array, or a view of it
            return;
        }
        throw std::invalid_argument("array " + name + " overlaps array " + array->name +
                                    " and leaves it");
    }
    arrays.push_back(std::make_unique<GlobalArray>(begin, bytes, written, name));
    std::sort(arrays.begin(), arrays.end(),
              [](const auto& a, const auto& b) { return a->shadow.begin() < b->shadow.begin(); });
}

void forget_arrays() {
    global_arrays().clear();
}

}  // namespace simt
