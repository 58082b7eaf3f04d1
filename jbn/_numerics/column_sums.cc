// Sums of an array and its products over the batch, about a shift, on XLA's own threads.
//
// Each row is read once for both sums. `make fast` builds this; `columns.py` calls it.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;

constexpr int64_t kTile = 1024;     // features whose sums stay in the first-level cache
constexpr int64_t kRows = 8;        // rows added in registers before they join those sums
constexpr int64_t kBlock = 256;     // rows added in float before they join a sum in double
constexpr int64_t kPart = 1 << 15;  // numbers that a thread takes at a time, at least
constexpr int64_t kParts = 16;      // of a batch, at most

// u and u * u, where u is x in the units of a frame.
struct SquareTerms {
  const float *x, *factor, *shift;

  void operator()(int64_t i, int64_t feature, float& first, float& second) const {
    float u = x[i] * factor[feature] - shift[feature];
    first += u, second += u * u;
  }
};

// ct * (u - mean) and ct.
struct ProductTerms {
  const float *ct, *x, *factor, *shift, *mean;

  void operator()(int64_t i, int64_t feature, float& first, float& second) const {
    float centred = (x[i] * factor[feature] - shift[feature]) - mean[feature];
    first += ct[i] * centred, second += ct[i];
  }
};

template <int64_t rows, typename Terms>
void AddRows(const Terms& terms, int64_t row, int64_t features, int64_t from, int64_t width,
             float* __restrict first, float* __restrict second) {
  for (int64_t j = 0; j < width; ++j) {
    float a = 0, b = 0;
    for (int64_t r = 0; r < rows; ++r) terms((row + r) * features + from + j, from + j, a, b);
    first[j] += a, second[j] += b;
  }
}

template <typename Terms>
void AddPart(const Terms& terms, int64_t begin, int64_t end, int64_t features, double* first,
             double* second) {
  float a[kTile], b[kTile];
  for (int64_t from = 0; from < features; from += kTile) {
    const int64_t width = std::min(kTile, features - from);
    for (int64_t row = begin; row < end;) {
      const int64_t block = std::min(row + kBlock, end);
      std::fill_n(a, width, 0.0f), std::fill_n(b, width, 0.0f);
      for (; row + kRows <= block; row += kRows)
        AddRows<kRows>(terms, row, features, from, width, a, b);
      for (; row < block; ++row) AddRows<1>(terms, row, features, from, width, a, b);
      for (int64_t j = 0; j < width; ++j) first[from + j] += a[j], second[from + j] += b[j];
    }
  }
}

// Does all tasks, on the calling thread too: it waits for none that has not begun.
template <typename Task>
void InParallel(ffi::ThreadPool& pool, int64_t tasks, Task task) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  auto work = [shared, tasks, task] {
    int64_t mine = 0;
    for (int64_t i; (i = shared->next++) < tasks; ++mine) task(i);
    if (mine == 0) return;
    std::lock_guard<std::mutex> lock(shared->mutex);
    if ((shared->done += mine) == tasks) shared->finished.notify_one();
  };
  for (int64_t i = std::min(pool.num_threads(), tasks); i > 1; --i) {
    auto copy = work;
    pool.Schedule(std::move(copy));
  }
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == tasks; });
}

// `terms_of(i)` are those of batch number i, of `batches` of `rows` rows.
template <typename TermsOf>
ffi::Error Sum(ffi::ThreadPool& pool, Floats x, TermsOf terms_of, ffi::Result<Floats>& first,
               ffi::Result<Floats>& second) {
  const auto shape = x.dimensions();
  const int64_t features = shape[shape.size() - 1], rows = shape[shape.size() - 2];
  const int64_t batches = first->element_count() / features;
  // The same parts, and so the same sums, whatever the number of threads.
  const int64_t parts = std::clamp<int64_t>(rows * features / kPart, 1, kParts);
  std::vector<double> sums(2 * batches * parts * features);
  InParallel(pool, batches * parts, [&](int64_t i) {
    const int64_t part = i % parts;
    double* mine = &sums[2 * i * features];
    AddPart(terms_of(i / parts), rows * part / parts, rows * (part + 1) / parts, features, mine,
            mine + features);
  });
  for (int64_t i = 0; i < batches; ++i) {
    for (int64_t j = 0; j < features; ++j) {
      double a = 0, b = 0;
      for (int64_t part = i * parts; part < (i + 1) * parts; ++part)
        a += sums[2 * part * features + j], b += sums[(2 * part + 1) * features + j];
      first->typed_data()[i * features + j] = static_cast<float>(a);
      second->typed_data()[i * features + j] = static_cast<float>(b);
    }
  }
  return ffi::Error::Success();
}

int64_t BatchSize(Floats x) {
  const auto shape = x.dimensions();
  return shape[shape.size() - 1] * shape[shape.size() - 2];
}

ffi::Error SumSquares(ffi::ThreadPool pool, Floats x, Floats factor, Floats shift,
                      ffi::Result<Floats> first, ffi::Result<Floats> second) {
  const int64_t size = BatchSize(x), features = x.dimensions().back();
  auto terms = [=](int64_t i) {
    const int64_t at = i * features;
    return SquareTerms{x.typed_data() + i * size, factor.typed_data() + at,
                       shift.typed_data() + at};
  };
  return Sum(pool, x, terms, first, second);
}

ffi::Error SumProducts(ffi::ThreadPool pool, Floats ct, Floats x, Floats factor, Floats shift,
                       Floats mean, ffi::Result<Floats> first, ffi::Result<Floats> second) {
  const int64_t size = BatchSize(x), features = x.dimensions().back();
  auto terms = [=](int64_t i) {
    const int64_t at = i * features;
    return ProductTerms{ct.typed_data() + i * size, x.typed_data() + i * size,
                        factor.typed_data() + at, shift.typed_data() + at,
                        mean.typed_data() + at};
  };
  return Sum(pool, x, terms, first, second);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Squares, SumSquares,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(Products, SumProducts,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
