// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <pthread.h>
#include <pybind11/numpy.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace anynorm::python {

namespace py = pybind11;

namespace {

// Two results of 64 MB: y = layer_norm(x) in a loop holds the old one until the new one is there.
constexpr std::int64_t default_limit = std::int64_t{128} << 20;
constexpr int most_blocks = 16;
// Huge pages begin at multiples of their size; the page before them holds what is known about the block.
constexpr std::size_t page = 4096;

struct Block {
    std::size_t capacity;
};

Block& block_of(void* data) { return *reinterpret_cast<Block*>(static_cast<std::byte*>(data) - sizeof(Block)); }

std::byte* start_of(void* data) { return static_cast<std::byte*>(data) - page; }

std::size_t capacity_for(std::size_t bytes) {
    return (std::max<std::size_t>(bytes, 1) + huge_page - 1) / huge_page * huge_page;
}

void unmap(void* data) { munmap(start_of(data), page + block_of(data).capacity); }

/// Memory from the system, zeroed; nullptr if there is none.
void* map(std::size_t capacity) {
    const std::size_t length = capacity + huge_page + page;
    void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto* const first = static_cast<std::byte*>(mapped);
    const auto behind_page = reinterpret_cast<std::uintptr_t>(first) + page;
    std::byte* const data = first + page + (huge_page - behind_page % huge_page) % huge_page;
    if (start_of(data) > first) munmap(first, static_cast<std::size_t>(start_of(data) - first));
    if (first + length > data + capacity) {
        munmap(data + capacity, static_cast<std::size_t>(first + length - (data + capacity)));
    }
#if defined(MADV_HUGEPAGE)
    madvise(data, capacity, MADV_HUGEPAGE);  // without huge pages it is as good as any memory
#endif
    block_of(data).capacity = capacity;
    return data;
}

std::int64_t limit_from_environment() {
    const char* const text = std::getenv("ANYNORM_POOL_BYTES");
    if (text == nullptr || *text == '\0') return default_limit;
    const std::string_view digits = text;
    std::int64_t value = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (read.ec != std::errc() || read.ptr != digits.data() + digits.size() || value < 0)
        throw std::invalid_argument("ANYNORM_POOL_BYTES: expected a number of bytes, got " + std::string(digits));
    return value;
}

/// Free blocks, the one freed last at the end.
class Pool {
  public:
    std::int64_t limit() {
        const std::lock_guard lock(mutex_);
        if (limit_ < 0) limit_ = limit_from_environment();
        return limit_;
    }

    std::int64_t held() {
        const std::lock_guard lock(mutex_);
        return held_;
    }

    void set_limit(std::int64_t bytes) {
        const std::lock_guard lock(mutex_);
        limit_ = bytes;
        shrink(bytes);
    }

    void empty() {
        const std::lock_guard lock(mutex_);
        shrink(0);
    }

    /// A block for `bytes`, or nullptr. At most a quarter of it is left over.
    void* take(std::size_t bytes) {
        const std::size_t least = capacity_for(bytes), most = std::max(least + least / 4, least + huge_page);
        const std::lock_guard lock(mutex_);
        int best = -1;
        for (int i = count_ - 1; i >= 0; --i) {
            const std::size_t capacity = block_of(blocks_[i]).capacity;
            if (capacity < least || capacity > most) continue;
            if (best < 0 || capacity < block_of(blocks_[best]).capacity) best = i;
        }
        return best < 0 ? nullptr : remove(best);
    }

    /// Keeps a block, at the cost of those that have been free for longest; false if it is too large.
    bool give(void* data) {
        const auto capacity = static_cast<std::int64_t>(block_of(data).capacity);
        const std::lock_guard lock(mutex_);
        if (capacity > limit_) return false;
        shrink(limit_ - capacity);
        if (count_ == most_blocks) unmap(remove(0));
        blocks_[count_++] = data;
        held_ += capacity;
        return true;
    }

    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

  private:
    void shrink(std::int64_t bytes) {
        while (held_ > bytes) unmap(remove(0));
    }

    void* remove(int index) {
        void* const data = blocks_[index];
        std::copy(blocks_ + index + 1, blocks_ + count_, blocks_ + index);
        --count_;
        held_ -= static_cast<std::int64_t>(block_of(data).capacity);
        return data;
    }

    std::mutex mutex_;
    std::int64_t limit_ = -1;  // not read from the environment yet
    std::int64_t held_ = 0;
    int count_ = 0;
    void* blocks_[most_blocks];
};

// Never destroyed: arrays are freed until the very end of the process.
Pool& pool() {
    static Pool& result = *new Pool;
    return result;
}

// NEP 49. NumPy calls these with the GIL or, free-threaded, from any thread; exceptions do not pass through it.

void* allocate(void*, std::size_t bytes) {
    void* const data = pool().take(bytes);
    return data != nullptr ? data : map(capacity_for(bytes));
}

void release(void*, void* data, std::size_t) {
    if (data != nullptr && !pool().give(data)) unmap(data);
}

void* allocate_zeros(void*, std::size_t count, std::size_t size) { return map(capacity_for(count * size)); }

void* reallocate(void*, void* data, std::size_t bytes) {
    if (data == nullptr) return allocate(nullptr, bytes);
    if (capacity_for(bytes) == block_of(data).capacity) return data;
    void* const larger = allocate(nullptr, bytes);
    if (larger == nullptr) return nullptr;
    std::memcpy(larger, data, std::min(bytes, block_of(data).capacity));
    release(nullptr, data, 0);
    return larger;
}

// As NumPy's headers declare them, which are not needed to build this module.
struct Handler {
    char name[127];
    std::uint8_t version;
    void* context;
    void* (*malloc)(void*, std::size_t);
    void* (*calloc)(void*, std::size_t, std::size_t);
    void* (*realloc)(void*, void*, std::size_t);
    void (*free)(void*, void*, std::size_t);
};
constexpr int set_handler_index = 304;

Handler handler = {"anynorm_results", 1, nullptr, allocate, allocate_zeros, reallocate, release};

// Written once at import.
PyObject* (*set_handler)(PyObject*) = nullptr;
PyObject* handler_capsule = nullptr;

}  // namespace

FromPool::FromPool(std::size_t bytes) {
    if (bytes < huge_page || pool().limit() == 0) return;
    before_ = py::reinterpret_steal<py::object>(set_handler(handler_capsule));
    if (!before_) throw py::error_already_set();
}

FromPool::~FromPool() {
    if (!before_) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);  // of the allocation
    Py_XDECREF(set_handler(before_.ptr()));
    PyErr_Restore(type, value, trace);
}

namespace {

void load_memory() {
    const py::object api = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
    void** const functions = static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr));
    if (functions == nullptr) throw py::error_already_set();
    set_handler = reinterpret_cast<PyObject* (*)(PyObject*)>(functions[set_handler_index]);
    handler_capsule = PyCapsule_New(&handler, "mem_handler", nullptr);
    if (handler_capsule == nullptr) throw py::error_already_set();
    // A child made by fork() while another thread is in the pool would find it locked for ever.
    pthread_atfork([] { pool().lock(); }, [] { pool().unlock(); }, [] { pool().unlock(); });
}

}  // namespace

void add_memory(py::module_& module) {
    load_memory();
    module.def("result_pool", [] { return py::make_tuple(pool().held(), pool().limit()); });
    module.def("empty_result_pool", [] { pool().empty(); });
    module.def(
        "set_result_pool",
        [](py::handle object) {
            if (!PyIndex_Check(object.ptr()))
                throw py::type_error(std::string("set_result_pool: expected max_bytes to be an int, got ") +
                                     Py_TYPE(object.ptr())->tp_name);
            const Py_ssize_t bytes = PyNumber_AsSsize_t(object.ptr(), nullptr);
            if (bytes == -1 && PyErr_Occurred()) throw py::error_already_set();
            if (bytes < 0)
                throw std::invalid_argument("set_result_pool: expected max_bytes of at least 0, got " +
                                            std::to_string(bytes));
            pool().set_limit(bytes);
        },
        py::arg("max_bytes"), py::pos_only());
}

}  // namespace anynorm::python
