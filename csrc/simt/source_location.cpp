#include "source_location.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

namespace simt {
namespace {

constexpr Location kSiteBit = 0x80000000u;

const Dl_info& this_module() {
    static const Dl_info info = [] {
        Dl_info result{};
        dladdr(reinterpret_cast<const void*>(&this_module), &result);
        return result;
    }();
    return info;
}

std::vector<Site>& sites() {
    static std::vector<Site> instance;
    return instance;
}

// As seen from the root of the project.
std::string short_path(const char* file) {
    std::string path = std::filesystem::path(file).lexically_normal().string();
#if defined(SIMT_SOURCE_ROOT)
    const std::string root = SIMT_SOURCE_ROOT "/";
    if (path.compare(0, root.size(), root) == 0) path.erase(0, root.size());
#endif
    while (path.compare(0, 3, "../") == 0)
        path.erase(0, 3);
    return path;
}

std::string shell_quoted(const char* text) {
    std::string quoted = "'";
    for (; *text; ++text)
        quoted += *text == '\'' ? std::string("'\\''") : std::string(1, *text);
    return quoted + "'";
}

}  // namespace

Location location_of(const void* return_address) {
    // One byte back: inside the call instruction.
    return static_cast<Location>(static_cast<const char*>(return_address) - 1 -
                                 static_cast<const char*>(this_module().dli_fbase));
}

Location location_of(Site site) {
    for (std::size_t i = 0; i < sites().size(); ++i) {
        if (sites()[i].line == site.line && sites()[i].file == site.file)
            return kSiteBit | static_cast<Location>(i);
    }
    sites().push_back(site);
    return kSiteBit | static_cast<Location>(sites().size() - 1);
}

bool in_this_module(std::uintptr_t address) {
    static const std::pair<std::uintptr_t, std::uintptr_t> image = [] {
        std::pair<std::uintptr_t, std::uintptr_t> range(~std::uintptr_t{0}, 0);
        dl_iterate_phdr(
            [](dl_phdr_info* info, std::size_t, void* data) {
                auto& result = *static_cast<std::pair<std::uintptr_t, std::uintptr_t>*>(data);
                std::pair<std::uintptr_t, std::uintptr_t> found(~std::uintptr_t{0}, 0);
                const auto here = reinterpret_cast<std::uintptr_t>(&this_module);
                bool ours = false;
                for (int i = 0; i < info->dlpi_phnum; ++i) {
                    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
                    if (segment.p_type != PT_LOAD) continue;
                    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
                    const std::uintptr_t end = begin + segment.p_memsz;
                    ours |= here >= begin && here < end;
                    found = {std::min(found.first, begin), std::max(found.second, end)};
                }
                if (ours) result = found;
                return ours ? 1 : 0;
            },
            &range);
        return range;
    }();
    return address >= image.first && address < image.second;
}

std::string describe(Site site) {
    return short_path(site.file) + ":" + std::to_string(site.line);
}

std::string describe(Location location) {
    return describe(std::vector<Location>{location})[0];
}

std::vector<std::string> describe(const std::vector<Location>& locations) {
    std::vector<std::string> texts;
    std::vector<std::size_t> in_code;  // which of them
    std::string command = "addr2line -a -i -e " + shell_quoted(this_module().dli_fname);
    char offset[24];
    for (const Location location : locations) {
        texts.push_back(location & kSiteBit ? describe(sites()[location & ~kSiteBit]) : "");
        if (location & kSiteBit) continue;
        in_code.push_back(texts.size() - 1);
        std::snprintf(offset, sizeof(offset), " 0x%x", location);
        command += offset;
    }
    FILE* pipe = in_code.empty() ? nullptr : popen((command + " 2>/dev/null").c_str(), "r");
    if (pipe) {
        char line[1024];
        auto next = in_code.begin();
        std::string* text = nullptr;
        while (std::fgets(line, sizeof(line), pipe)) {
            line[std::strcspn(line, " \n")] = '\0';
            if (std::strncmp(line, "0x", 2) == 0) {  // an address; its lines follow
                text = &texts[*next++];
            } else if (line[0] != '?' && !std::strstr(line, "csrc/simt/") &&
                       !std::strstr(line, "/c++/")) {  // not the emulator's own inline functions
                *text += (text->empty() ? "" : ", called from ") + short_path(line);
            }
        }
        pclose(pipe);
    }
    for (const std::size_t i : in_code) {
        if (!texts[i].empty()) continue;
        std::snprintf(offset, sizeof(offset), "0x%x", locations[i]);
        texts[i] = std::string("code address ") + offset + " of " + this_module().dli_fname;
    }
    return texts;
}

}  // namespace simt
