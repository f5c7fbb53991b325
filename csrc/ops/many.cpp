// The operators for several programs at once: checks and memory for all of them, then their calls, spread over threads.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cpu/execute.h"
#include "cpu/many.h"
#include "cpu/values.h"
#include "ops/checks.h"
#include "ops/cpu_call.h"
#include "runtime/buffer.h"

namespace ketgrad::ops {
namespace {

using Indices = std::vector<std::int64_t>;

// Runs a check, in whose message the program is named.
template <class F>
void check_program(std::size_t k, const F& check) {
  try {
    check();
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    const std::string ours = "ketgrad: ";
    throw std::invalid_argument(ours + "program " + std::to_string(k) + ": " +
                                (text.starts_with(ours) ? text.substr(ours.size()) : text));
  }
}

// Where the numbers of one program begin in tensors of those of all.
struct FirstNumbers {
  Index real = 0;
  Index complex = 0;
  Index ket = 0;
};

// Kets begin at cache lines, those too that are kept in single precision.
template <class T>
Index padded_ket_size(const Call<T>& call) {
  constexpr Index line = static_cast<Index>(line_bytes / (2 * sizeof(float)));
  return (call.batch * call.planned->ket_size() + line - 1) / line * line;
}

// The calls of several programs: each reads its inputs where the next of `places` say, among those of all.
template <class T>
struct ManyCalls {
  std::vector<std::unique_ptr<PreparedCall<T>>> prepared;
  std::vector<const Call<T>*> calls;
  std::vector<const std::int64_t*> places;
  std::vector<FirstNumbers> offsets;
  FirstNumbers totals;

  ManyCalls(const Indices& programs, const std::vector<Tensor>& inputs, const Indices& all_places) {
    std::size_t next = 0;
    for (std::size_t k = 0; k < programs.size(); ++k) {
      ProgramHandle program = find_program(programs[k]);
      const std::size_t count = program->program.inputs.size();
      check_program(k, [&] {
        require(next + count <= all_places.size(),
                [&] { return "no places for its " + std::to_string(count) + " inputs"; });
        add(std::move(program), inputs, all_places.data() + next, count);
      });
      next += count;
    }
    require(next == all_places.size(), [&] {
      return std::to_string(all_places.size()) + " places, the programs have " + std::to_string(next) + " inputs";
    });
  }

  void check_all_values() const {
    for (std::size_t k = 0; k < calls.size(); ++k) check_program(k, [&] { check_values(*calls[k]); });
  }

  // The numbers of program k.
  Results<T> results(std::size_t k, const Tensor& real, const Tensor& complex, const Tensor& ket) const {
    Results<T> found{data<T>(real) + offsets[k].real, data<T>(complex) + 2 * offsets[k].complex};
    set_ket<T>(found, ket, offsets[k].ket);
    return found;
  }

  double result_bytes() const {
    return static_cast<double>(totals.real + 2 * totals.complex) * static_cast<double>(sizeof(T));
  }

  // Of as many of them at once as there are threads.
  double all_workspace_bytes(bool backward, bool keeps_ket = false) const {
    double most = 0;
    for (const Call<T>* call : calls) {
      const Index at_once = work_of(*call).on_one_thread ? call->threads : 1;
      most = std::max(most, static_cast<double>(at_once) * workspace_bytes(*call, backward, keeps_ket));
    }
    return most;
  }

 private:
  void add(ProgramHandle program, const std::vector<Tensor>& inputs, const std::int64_t* own, std::size_t count) {
    std::vector<Tensor> read;
    read.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      require(own[i] >= 0 && own[i] < static_cast<Index>(inputs.size()),
              [&] { return "there is no input " + std::to_string(own[i]); });
      read.push_back(inputs[own[i]]);
    }
    prepared.push_back(std::make_unique<PreparedCall<T>>(std::move(program), read));
    const Call<T>& call = prepared.back()->call;
    calls.push_back(&call);
    places.push_back(own);
    offsets.push_back(totals);
    totals.real += call.batch * call.program().real_results();
    totals.complex += call.batch * call.program().complex_results();
    totals.ket += padded_ket_size(call);
  }
};

void require_room_for_all(double bytes, std::size_t programs, const char* what) {
  if (bytes > always_fits) require_memory(bytes, what + std::to_string(programs) + " programs");
}

// Numbers in the gradients that are waiting to be added up: they stay in a cache. There are more where gradients are so
// large that not all threads would have one.
constexpr Index most_waiting = Index{1} << 18;

// Gradients of the requested inputs, each the sum over the programs that read it, in the order of the programs: bit by
// bit what adding up those of single calls gives. The first program writes into the sum, each of the others into a
// buffer.
template <class T>
class SummedGradients {
 public:
  SummedGradients(const ManyCalls<T>& many, const std::vector<Tensor>& inputs, const Indices& requested,
                  const Indices& chosen)
      : many_(many), inputs_(inputs), requested_(requested), sums_(inputs.size(), nullptr), sizes_(inputs.size(), 0) {
    check_requested(requested_, inputs.size());
    for (const Index input : requested_) {
      const ScalarType type = inputs[input].scalar_type();
      require(type == real_type<T> || type == complex_type<T>,
              [&] { return input_name(input) + " has another precision than the first one"; });
      sizes_[input] = inputs[input].numel() * (type == complex_type<T> ? 2 : 1);
    }
    plan(chosen);
  }

  double bytes() const {
    const Index numbers = std::accumulate(sizes_.begin(), sizes_.end(), most_waiting_);
    return static_cast<double>(numbers) * static_cast<double>(sizeof(T));
  }

  // f(program, the addresses of the gradients of its inputs), for each of the chosen programs.
  template <class F>
  std::vector<Tensor> run(const F& f) {
    std::vector<Tensor> gradients;
    for (const Index input : requested_) {
      gradients.push_back(empty(shape_of(inputs_[input]), inputs_[input].scalar_type()));
      sums_[input] = gradient_address<T>(gradients.back());
      std::fill_n(sums_[input], sizes_[input], T(0));
    }
    const HugePageBuffer<T> waiting(std::max<Index>(1, most_waiting_));
    for (const std::vector<Reader>& window : windows_) {
      std::vector<const Call<T>*> calls;
      for (const Reader& reader : window) calls.push_back(many_.calls[reader.program]);
      run_many<T>(calls, [&](Index r) { f(window[r].program, addresses(window[r], waiting.data())); });
      for (const Reader& reader : window) add(reader, waiting.data());
    }
    return gradients;
  }

 private:
  // An input of a program, which is one of all inputs, and where its gradient waits: -1 if it is written into the sum.
  struct Read {
    std::size_t own;
    Index input;
    Index begin;
  };
  struct Reader {
    Index program;
    std::vector<Read> reads;
  };

  void plan(const Indices& chosen) {
    std::vector<bool> is_read(inputs_.size(), false);
    std::vector<bool> is_requested(inputs_.size(), false);
    for (const Index input : requested_) is_requested[input] = true;
    Index waiting = 0;
    for (const Index program : chosen) {
      require(program >= 0 && program < static_cast<Index>(many_.calls.size()),
              [&] { return "there is no program " + std::to_string(program); });
      const bool is_full = !windows_.empty() && waiting > most_waiting &&
                           static_cast<int>(windows_.back().size()) >= many_.calls[program]->threads;
      if (windows_.empty() || is_full) {
        windows_.emplace_back();
        waiting = 0;
      }
      Reader reader{program, {}};
      for (std::size_t own = 0; own < many_.calls[program]->inputs.size(); ++own) {
        const Index input = many_.places[program][own];
        if (!is_requested[input]) continue;
        reader.reads.push_back({own, input, is_read[input] ? waiting : -1});
        if (is_read[input]) waiting += sizes_[input];
        is_read[input] = true;
      }
      windows_.back().push_back(std::move(reader));
      most_waiting_ = std::max(most_waiting_, waiting);
    }
  }

  std::vector<T*> addresses(const Reader& reader, T* waiting) const {
    std::vector<T*> found(many_.calls[reader.program]->inputs.size(), nullptr);
    for (const Read& read : reader.reads) {
      found[read.own] = read.begin < 0 ? sums_[read.input] : waiting + read.begin;
      if (read.begin >= 0) std::fill_n(found[read.own], sizes_[read.input], T(0));
    }
    return found;
  }

  void add(const Reader& reader, const T* waiting) const {
    for (const Read& read : reader.reads) {
      if (read.begin < 0) continue;
      T* sum = sums_[read.input];
      for (Index e = 0; e < sizes_[read.input]; ++e) sum[e] += waiting[read.begin + e];
    }
  }

  const ManyCalls<T>& many_;
  const std::vector<Tensor>& inputs_;
  std::vector<Index> requested_;
  std::vector<T*> sums_;                      // per input, null where it is not requested
  std::vector<Index> sizes_;                  // per input, 0 where it is not
  std::vector<std::vector<Reader>> windows_;  // of programs that run together
  Index most_waiting_ = 0;
};

template <class T>
Executed execute_many_as(const Indices& programs, const std::vector<Tensor>& inputs, const Indices& places,
                         KeepKet keep_ket) {
  const ManyCalls<T> many(programs, inputs, places);
  many.check_all_values();
  const KeptKets<T> kets(keep_ket, 1, many.totals.ket);
  require_room_for_all(
      many.result_bytes() + static_cast<double>(kets.bytes()) + many.all_workspace_bytes(false, kets.are_exact()),
      programs.size(), "");
  const Tensor real = empty({many.totals.real}, real_type<T>);
  const Tensor complex = empty({many.totals.complex}, complex_type<T>);
  const Tensor ket = kets.allocate();
  run_many<T>(many.calls, [&](Index k) { execute<T>(*many.calls[k], many.results(k, real, complex, ket)); });
  return {real, complex, ket};
}

// The cotangents of several programs, contiguous.
template <class T>
struct ManyCotangents {
  Tensor real;
  Tensor complex;

  ManyCotangents(const ManyCalls<T>& many, const Tensor& first, const Tensor& g_real, const Tensor& g_complex)
      : real(check_cotangent(g_real, first, {many.totals.real}, real_type<T>, "the real cotangent")),
        complex(check_cotangent(g_complex, first, {many.totals.complex}, complex_type<T>, "the complex cotangent")) {}

  Cotangents<T> of(const FirstNumbers& offsets, std::vector<T*> gradients) const {
    return {nullptr, data<const T>(real) + offsets.real, data<const T>(complex) + 2 * offsets.complex,
            std::move(gradients)};
  }
};

template <class T>
std::vector<Tensor> execute_vjp_many_as(const Indices& programs, const std::vector<Tensor>& inputs,
                                        const Indices& places, const Tensor& ket, const Tensor& g_real,
                                        const Tensor& g_complex, const Indices& chosen, const Indices& requested) {
  const ManyCalls<T> many(programs, inputs, places);
  const ManyCotangents<T> cotangents(many, inputs[0], g_real, g_complex);
  const Tensor kets = check_ket<T>(ket, inputs[0], {1, many.totals.ket});
  SummedGradients<T> sums(many, inputs, requested, chosen);
  require_room_for_all(many.all_workspace_bytes(true) + sums.bytes(), programs.size(), "the gradient of ");
  return sums.run([&](Index k, std::vector<T*> gradients) {
    const FirstNumbers& offsets = many.offsets[k];
    Cotangents<T> own = cotangents.of(offsets, std::move(gradients));
    if (many.calls[k]->planned->ket_size() > 0) set_ket<T>(own, kets, offsets.ket);
    execute_vjp<T>(*many.calls[k], own);
  });
}

template <class T>
ResultsAndGradients execute_and_vjp_many_as(const Indices& programs, const std::vector<Tensor>& inputs,
                                            const Indices& places, const Tensor& g_real, const Tensor& g_complex,
                                            const Indices& requested) {
  const ManyCalls<T> many(programs, inputs, places);
  many.check_all_values();
  const ManyCotangents<T> cotangents(many, inputs[0], g_real, g_complex);
  Indices all(programs.size());
  std::iota(all.begin(), all.end(), 0);
  SummedGradients<T> sums(many, inputs, requested, all);
  require_room_for_all(many.all_workspace_bytes(true) + many.result_bytes() + sums.bytes(), programs.size(),
                       "value and gradient of ");
  const Tensor real = empty({many.totals.real}, real_type<T>);
  const Tensor complex = empty({many.totals.complex}, complex_type<T>);
  const Tensor no_ket = empty({0}, complex_type<T>);
  const std::vector<Tensor> gradients = sums.run([&](Index k, std::vector<T*> addresses) {
    execute_and_vjp<T>(*many.calls[k], {many.results(k, real, complex, no_ket), 0, nullptr},
                       cotangents.of(many.offsets[k], std::move(addresses)));
  });
  return {real, complex, gradients};
}

Executed execute_many_cpu(Indices programs, std::vector<Tensor> inputs, Indices places, std::int64_t keep_ket) {
  const KeepKet keep = check_keep_ket(keep_ket);
  return is_single(inputs) ? execute_many_as<float>(programs, inputs, places, keep)
                           : execute_many_as<double>(programs, inputs, places, keep);
}

std::vector<Tensor> execute_vjp_many_cpu(Indices programs, std::vector<Tensor> inputs, Indices places,
                                         const Tensor& ket, const Tensor& g_real, const Tensor& g_complex,
                                         Indices chosen, Indices requested) {
  return is_single(inputs)
             ? execute_vjp_many_as<float>(programs, inputs, places, ket, g_real, g_complex, chosen, requested)
             : execute_vjp_many_as<double>(programs, inputs, places, ket, g_real, g_complex, chosen, requested);
}

ResultsAndGradients execute_and_vjp_many_cpu(Indices programs, std::vector<Tensor> inputs, Indices places,
                                             const Tensor& g_real, const Tensor& g_complex, Indices requested) {
  return is_single(inputs) ? execute_and_vjp_many_as<float>(programs, inputs, places, g_real, g_complex, requested)
                           : execute_and_vjp_many_as<double>(programs, inputs, places, g_real, g_complex, requested);
}

}  // namespace
}  // namespace ketgrad::ops

STABLE_TORCH_LIBRARY_IMPL(ketgrad, CPU, m) {
  m.impl("execute_many", TORCH_BOX(&ketgrad::ops::execute_many_cpu));
  m.impl("execute_vjp_many", TORCH_BOX(&ketgrad::ops::execute_vjp_many_cpu));
  m.impl("execute_and_vjp_many", TORCH_BOX(&ketgrad::ops::execute_and_vjp_many_cpu));
}
