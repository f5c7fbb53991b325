#include "cpu/many.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

#include "cpu/execute.h"

namespace ketgrad {

namespace {

// Each thread takes the next call when it has ended one: their times differ.
void run_tasks(const std::vector<Index>& tasks, ParallelFor parallel, Index threads,
               const std::function<void(Index)>& f) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  run_parallel(parallel, threads, [&](Index) {
    for (std::size_t t = next++; t < tasks.size() && !failed; t = next++) {
      try {
        f(tasks[t]);
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

template <class T>
void run_many(std::span<const Call<T>* const> calls, const std::function<void(Index)>& f) {
  std::vector<Index> tasks;
  double written = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const CallWork work = work_of(*calls[i]);
    if (!work.on_one_thread) {
      f(static_cast<Index>(i));
      continue;
    }
    tasks.push_back(static_cast<Index>(i));
    written += work.written;
  }
  const Index threads = tasks.empty() ? 0 : std::min<Index>(calls[0]->threads, static_cast<Index>(tasks.size()));
  if (threads > 1 && written >= smallest_parallel_call) return run_tasks(tasks, calls[0]->parallel, threads, f);
  for (const Index i : tasks) f(i);
}

template void run_many(std::span<const Call<float>* const>, const std::function<void(Index)>&);
template void run_many(std::span<const Call<double>* const>, const std::function<void(Index)>&);

}  // namespace ketgrad
