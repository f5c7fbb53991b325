#include "cpu/parts.h"

#include <algorithm>
#include <utility>

namespace ketgrad {

namespace {

// A call of one part: row m * B + b is sample b of member m. Its inputs are gathered from the whole's, vectors of
// numbers by their columns.
template <class T>
class PartCall {
 public:
  // `links`: the results of earlier parts, [B, num_links], and their tangents; null where the part reads none.
  PartCall(const Call<T>& whole, const Part& part, const T* links, const T* link_tangents)
      : whole_(whole), part_(part), with_tangents_(!whole.tangents.empty()) {
    call.cancelled = whole.cancelled;
    call.caller = whole.caller;
    call.planned = part.program.get();
    call.batch = whole.batch * num_members();
    call.has_copies = whole.has_copies;
    call.parallel = whole.parallel;
    call.threads = whole.threads;
    buffers_.reserve(2 * part.inputs.size());
    for (std::size_t i = 0; i < part.inputs.size(); ++i) add_input(i, links, link_tangents);
  }
  PartCall(const PartCall&) = delete;
  PartCall& operator=(const PartCall&) = delete;
  ~PartCall() = default;

  Call<T> call;

  Index num_members() const { return static_cast<Index>(part_.members.size()); }
  // The input of the whole that an input of the part is read from.
  int source(std::size_t input) const { return part_.inputs[input]; }
  bool is_link(std::size_t input) const { return source(input) == whole_.planned->parts.links; }

  // Adds the gradients of the part's inputs to the whole's, and to the links' [B, num_links]. `gradients` is that of an
  // input of the part, null where it was not requested.
  void scatter(const std::vector<std::vector<T>>& gradients, const std::vector<T*>& of_whole, T* of_links) const {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i].empty()) continue;
      if (is_link(i)) {
        scatter_columns(i, gradients[i].data(), of_links, true, whole_.planned->parts.num_links);
      } else if (call.inputs[i].is_complex) {
        T* to = of_whole[part_.inputs[i]];
        for (std::size_t e = 0; e < gradients[i].size(); ++e) to[e] += gradients[i][e];
      } else {
        const int input = part_.inputs[i];
        scatter_columns(i, gradients[i].data(), of_whole[input], !whole_.sums_gradient(input),
                        whole_.inputs[input].numel);
      }
    }
  }

 private:
  void add_input(std::size_t i, const T* links, const T* link_tangents) {
    const Index width = call.program().inputs[i].numel();
    if (is_link(i)) {
      const auto of_links = [&](const T* numbers) {
        return InputView<T>{gather(i, {numbers, true, false, whole_.planned->parts.num_links}, true), true, false,
                            width};
      };
      call.inputs.push_back(of_links(links));
      if (with_tangents_) call.tangents.push_back(of_links(link_tangents));
      return;
    }
    const InputView<T>& view = whole_.inputs[part_.inputs[i]];
    if (view.is_complex) {
      call.inputs.push_back(view);
      if (with_tangents_) call.tangents.push_back(whole_.tangents[part_.inputs[i]]);
      return;
    }
    const bool batched = view.batched || !is_alike(i);
    call.inputs.push_back({gather(i, view, batched), batched, false, width});
    if (!with_tangents_) return;
    const InputView<T>& tangent = whole_.tangents[part_.inputs[i]];
    const bool is_own = batched || tangent.batched;
    call.tangents.push_back({tangent.data == nullptr ? nullptr : gather(i, tangent, is_own), is_own, false, width});
  }

  // Whether all members read the same columns.
  bool is_alike(std::size_t input) const {
    return std::all_of(part_.members.begin(), part_.members.end(),
                       [&](const PartMember& m) { return m.columns[input] == part_.members[0].columns[input]; });
  }

  // The columns of an input, of all rows or, if they are alike, once.
  const T* gather(std::size_t input, const InputView<T>& from, bool batched) {
    const Index samples = batched ? whole_.batch : 1;
    const Index members = batched ? num_members() : 1;
    const auto width = static_cast<Index>(part_.members[0].columns[input].size());
    std::vector<T>& to = buffers_.emplace_back(std::max<Index>(1, members * samples * width));
    T* next = to.data();
    for (Index m = 0; m < members; ++m) {
      const std::vector<int>& columns = part_.members[m].columns[input];
      for (Index b = 0; b < samples; ++b) {
        const T* row = from.of_sample(b);
        for (const int c : columns) *next++ = row[c];
      }
    }
    return to.data();
  }

  void scatter_columns(std::size_t input, const T* from, T* to, bool to_batched, Index to_width) const {
    const bool summed = call.sums_gradient(static_cast<int>(input));
    const Index samples = summed ? 1 : whole_.batch;
    const Index members = summed ? 1 : num_members();
    for (Index m = 0; m < members; ++m) {
      const std::vector<int>& columns = part_.members[m].columns[input];
      const auto width = static_cast<Index>(columns.size());
      const T* rows = from + m * samples * width;
      for (Index c = 0; c < width; ++c) {
        if (to_batched) {
          for (Index b = 0; b < samples; ++b) to[b * to_width + columns[c]] += rows[b * width + c];
        } else {
          double sum = 0;
          for (Index b = 0; b < samples; ++b) sum += static_cast<double>(rows[b * width + c]);
          to[columns[c]] += static_cast<T>(sum);
        }
      }
    }
  }

  const Call<T>& whole_;
  const Part& part_;
  bool with_tangents_;
  std::vector<std::vector<T>> buffers_;
};

// Numbers of all rows of a part, of real or complex results, and their places among the whole's (or the links).
template <class T>
struct PartNumbers {
  std::vector<T> real;
  std::vector<T> complex;

  explicit PartNumbers(const Call<T>& part)
      : real(part.batch * part.program().real_results()), complex(2 * part.batch * part.program().complex_results()) {}

  Results<T> view() { return {real.data(), complex.data(), nullptr}; }
};

// f(spans of a member, the member's first row).
template <class F>
void for_each_span(const Part& part, Index batch, std::vector<ResultSpan> PartMember::* kind, const F& f) {
  for (std::size_t m = 0; m < part.members.size(); ++m) {
    for (const ResultSpan& span : part.members[m].*kind) f(span, static_cast<Index>(m) * batch);
  }
}

// Adds results of a part to the whole's, rows of `from_width` numbers to rows of `to_width`.
template <class T>
void add_results(const Part& part, Index batch, std::vector<ResultSpan> PartMember::* kind, Index size, const T* from,
                 Index from_width, T* to, Index to_width) {
  for_each_span(part, batch, kind, [&](const ResultSpan& span, Index first) {
    for (Index b = 0; b < batch; ++b) {
      const T* row = from + size * ((first + b) * from_width + span.from);
      T* out = to + size * (b * to_width + span.to);
      for (Index k = 0; k < size * span.count; ++k) out[k] += row[k];
    }
  });
}

// The other way: each number of a part has the cotangent of the one that it is added to. Null: zeros.
template <class T>
void take_cotangents(const Part& part, Index batch, std::vector<ResultSpan> PartMember::* kind, Index size,
                     const T* from, Index from_width, T* to, Index to_width) {
  if (from == nullptr) return;
  for_each_span(part, batch, kind, [&](const ResultSpan& span, Index first) {
    for (Index b = 0; b < batch; ++b) {
      const T* row = from + size * (b * from_width + span.to);
      T* out = to + size * ((first + b) * to_width + span.from);
      std::copy(row, row + size * span.count, out);
    }
  });
}

// What the parts of a call share.
template <class T>
class PartsRun {
 public:
  explicit PartsRun(const Call<T>& call)
      : call_(call),
        parts_(call.planned->parts),
        links_(call.batch * parts_.num_links),
        link_tangents_(links_.size()),
        reals_(call.program().real_results()),
        complexes_(call.program().complex_results()) {}

  void forward(const Results<T>& results) {
    clear(results);
    for (const Part& part : parts_.parts) run(part, results);
  }

  void backward(const Cotangents<T>& cotangents) {
    run_links();
    std::vector<T> link_gradients(links_.size());
    for (std::size_t p = parts_.parts.size(); p-- > 0;) {
      const Part& part = parts_.parts[p];
      PartCall<T> prepared(call_, part, links_.data(), link_tangents_.data());
      PartNumbers<T> taken(prepared.call);
      take(part, prepared.call, cotangents.real, cotangents.complex, link_gradients.data(), taken);
      std::vector<std::vector<T>> gradients;
      Cotangents<T> of_part{nullptr, taken.real.data(), taken.complex.data(), {}};
      if (!request(prepared, cotangents.gradients, gradients, of_part.gradients)) continue;
      execute_vjp<T>(prepared.call, of_part);
      prepared.scatter(gradients, cotangents.gradients, link_gradients.data());
    }
  }

  void tangents(const Directional<T>& directional) {
    run_links();
    clear(directional.results);
    for (const Part& part : parts_.parts) {
      PartCall<T> prepared(call_, part, links_.data(), link_tangents_.data());
      PartNumbers<T> found(prepared.call);
      Directional<T> of_part;
      of_part.results = found.view();
      of_part.cotangents.gradients.resize(part.inputs.size(), nullptr);
      execute_tangents<T>(prepared.call, of_part);
      add(part, prepared.call, found, directional.results, link_tangents_.data());
    }
    if (directional.requests_gradients()) gradient_tangents(directional);
  }

 private:
  void clear(const Results<T>& results) const {
    std::fill_n(results.real, call_.batch * reals_, T(0));
    std::fill_n(results.complex, 2 * call_.batch * complexes_, T(0));
  }

  void run(const Part& part, const Results<T>& results) {
    PartCall<T> prepared(call_, part, links_.data(), link_tangents_.data());
    PartNumbers<T> found(prepared.call);
    execute<T>(prepared.call, found.view());
    add(part, prepared.call, found, results, links_.data());
  }

  // The parts whose results are links.
  void run_links() {
    for (const Part& part : parts_.parts) {
      if (part.feeds_links) run(part, {});
    }
  }

  void add(const Part& part, const Call<T>& call, const PartNumbers<T>& found, const Results<T>& results, T* links) {
    const Program& program = call.program();
    T* real = part.feeds_links ? links : results.real;
    const Index width = part.feeds_links ? parts_.num_links : reals_;
    add_results(part, call_.batch, &PartMember::real, 1, found.real.data(), program.real_results(), real, width);
    add_results(part, call_.batch, &PartMember::complex, 2, found.complex.data(), program.complex_results(),
                results.complex, complexes_);
  }

  void take(const Part& part, const Call<T>& call, const T* real, const T* complex, const T* links,
            PartNumbers<T>& taken) const {
    const Program& program = call.program();
    const Index width = part.feeds_links ? parts_.num_links : reals_;
    take_cotangents(part, call_.batch, &PartMember::real, 1, part.feeds_links ? links : real, width, taken.real.data(),
                    program.real_results());
    take_cotangents(part, call_.batch, &PartMember::complex, 2, complex, complexes_, taken.complex.data(),
                    program.complex_results());
  }

  // Places for the gradients of a part: of inputs whose gradients are requested, and of links. False where it has none.
  bool request(const PartCall<T>& prepared, const std::vector<T*>& of_whole, std::vector<std::vector<T>>& gradients,
               std::vector<T*>& places) const {
    const Call<T>& call = prepared.call;
    gradients.assign(call.inputs.size(), {});
    places.assign(call.inputs.size(), nullptr);
    bool any = false;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      const InputView<T>& view = call.inputs[i];
      const bool requested = prepared.is_link(i) || of_whole[prepared.source(i)] != nullptr;
      const bool summed = call.sums_gradient(static_cast<int>(i));
      const Index numbers = view.numel * (view.is_complex ? 2 : 1) * (summed ? 1 : call.batch);
      if (!requested || numbers == 0) continue;
      any = true;
      gradients[i].resize(numbers);
      places[i] = gradients[i].data();
    }
    return any;
  }

  // Backward along the tangents. The gradients of links are requested too, and not only their tangents.
  void gradient_tangents(const Directional<T>& directional) {
    const Cotangents<T>& cotangents = directional.cotangents;
    std::vector<T> link_gradients(links_.size());
    std::vector<T> link_gradient_tangents(links_.size());
    for (std::size_t p = parts_.parts.size(); p-- > 0;) {
      const Part& part = parts_.parts[p];
      PartCall<T> prepared(call_, part, links_.data(), link_tangents_.data());
      PartNumbers<T> taken(prepared.call);
      PartNumbers<T> taken_tangents(prepared.call);
      PartNumbers<T> unused(prepared.call);
      take(part, prepared.call, cotangents.real, cotangents.complex, link_gradients.data(), taken);
      take(part, prepared.call, directional.real_tangent, directional.complex_tangent, link_gradient_tangents.data(),
           taken_tangents);
      std::vector<std::vector<T>> gradients;
      Directional<T> of_part;
      of_part.results = unused.view();
      of_part.cotangents = {nullptr, taken.real.data(), taken.complex.data(), {}};
      of_part.real_tangent = taken_tangents.real.data();
      of_part.complex_tangent = taken_tangents.complex.data();
      if (!request(prepared, cotangents.gradients, gradients, of_part.cotangents.gradients)) continue;
      execute_tangents<T>(prepared.call, of_part);
      prepared.scatter(gradients, cotangents.gradients, link_gradient_tangents.data());
      add_link_gradients(prepared, taken, link_gradients);
    }
  }

  void add_link_gradients(PartCall<T>& prepared, const PartNumbers<T>& taken, std::vector<T>& link_gradients) const {
    const std::vector<T*> none(call_.inputs.size(), nullptr);
    std::vector<std::vector<T>> gradients;
    Cotangents<T> of_part{nullptr, taken.real.data(), taken.complex.data(), {}};
    if (!request(prepared, none, gradients, of_part.gradients)) return;
    execute_vjp<T>(prepared.call, of_part);
    prepared.scatter(gradients, none, link_gradients.data());
  }

  const Call<T>& call_;
  const Parts& parts_;
  std::vector<T> links_;          // [B, num_links]
  std::vector<T> link_tangents_;  // along the call's tangents, if it has any
  Index reals_;
  Index complexes_;
};

// f(the call of each part, without inputs).
template <class T, class F>
void for_each_call(const Call<T>& whole, const F& f) {
  for (const Part& part : whole.planned->parts.parts) {
    Call<T> call;
    call.planned = part.program.get();
    call.batch = whole.batch * static_cast<Index>(part.members.size());
    call.threads = whole.threads;
    f(call);
  }
}

}  // namespace

template <class T>
void execute_parts(const Call<T>& call, const Results<T>& results) {
  if (call.batch == 0) return;
  PartsRun<T>(call).forward(results);
}

template <class T>
void execute_parts_vjp(const Call<T>& call, const Cotangents<T>& cotangents) {
  if (call.batch == 0) return;
  PartsRun<T>(call).backward(cotangents);
}

// The results of all parts decide about the cotangents of each.
template <class T>
void execute_parts_and_vjp(const Call<T>& call, const Measured<T>& measured, const Cotangents<T>& cotangents) {
  execute_parts(call, measured.results);
  Cotangents<T> of_results = cotangents;
  if (measured.curvature != T(0)) {
    measured.write_cotangents(cotangents, 0, call.batch * call.program().real_results());
    of_results.real = measured.cotangents;
  }
  execute_parts_vjp(call, of_results);
}

template <class T>
void execute_parts_tangents(const Call<T>& call, const Directional<T>& directional) {
  if (call.batch == 0) return;
  PartsRun<T>(call).tangents(directional);
}

template <class T>
double parts_workspace_bytes(const Call<T>& call, bool backward) {
  double most = 0;
  for_each_call(call, [&](const Call<T>& of_part) {
    const Program& program = of_part.program();
    double numbers = static_cast<double>(program.real_results() + 2 * program.complex_results());
    for (const InputSpec& input : program.inputs) numbers += 4.0 * static_cast<double>(input.numel());
    most =
        std::max(most, workspace_bytes(of_part, backward) + numbers * sizeof(T) * static_cast<double>(of_part.batch));
  });
  return most;
}

template <class T>
CallWork work_of_parts(const Call<T>& call) {
  CallWork total;
  for_each_call(call, [&](const Call<T>& of_part) {
    const CallWork work = work_of(of_part);
    total.written += work.written;
    total.on_one_thread &= work.on_one_thread;
  });
  return total;
}

template void execute_parts(const Call<float>&, const Results<float>&);
template void execute_parts(const Call<double>&, const Results<double>&);
template void execute_parts_vjp(const Call<float>&, const Cotangents<float>&);
template void execute_parts_vjp(const Call<double>&, const Cotangents<double>&);
template void execute_parts_and_vjp(const Call<float>&, const Measured<float>&, const Cotangents<float>&);
template void execute_parts_and_vjp(const Call<double>&, const Measured<double>&, const Cotangents<double>&);
template void execute_parts_tangents(const Call<float>&, const Directional<float>&);
template void execute_parts_tangents(const Call<double>&, const Directional<double>&);
template double parts_workspace_bytes(const Call<float>&, bool);
template double parts_workspace_bytes(const Call<double>&, bool);
template CallWork work_of_parts(const Call<float>&);
template CallWork work_of_parts(const Call<double>&);

}  // namespace ketgrad
