#include "plan/parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <compare>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "plan/cone.h"
#include "plan/cut.h"
#include "plan/registry.h"
#include "plan/subprogram.h"

namespace ketgrad {

namespace {

PartCosts costs_in_use;

// Among so many of the latest parts one is looked for that has room for another term.
constexpr std::size_t most_candidates = 512;
// Gates looked at, for each of the program's, while it is unknown whether it has parts.
constexpr Index most_visits = 100;

double amplitudes(std::size_t wires) { return std::ldexp(1.0, static_cast<int>(std::min<std::size_t>(wires, 1000))); }

// A set of wires.
using WireSet = std::vector<Mask>;

WireSet set_of(const std::vector<int>& wires, int num_wires) {
  WireSet found((num_wires + 63) / 64, 0);
  for (const int w : wires) found[w / 64] |= unit(w % 64);
  return found;
}

std::size_t size_of_union(const WireSet& a, const WireSet& b) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) size += static_cast<std::size_t>(std::popcount(a[i] | b[i]));
  return size;
}

// A measurement, or a term of an expectation value.
struct Unit {
  int measurement = 0;
  int term = -1;  // all of them
};

// A part that is being put together.
struct Draft {
  WireSet wires;
  std::size_t num_wires = 0;
  std::vector<Unit> units;
  std::vector<WireLetter> seen;
};

std::string key_of(const std::vector<WireLetter>& seen) {
  std::string key;
  for (const WireLetter& s : seen) key += std::to_string(s.wire) + static_cast<char>('a' + static_cast<int>(s.letter));
  return key;
}

// Whether a state is so large that two parts could take less.
bool may_have_parts(std::size_t wires) {
  return part_costs().least_gain * 2 * part_costs().of_part < amplitudes(wires);
}

// Divides what is measured among drafts.
class Division {
 public:
  // `whole`: the size of the cone of all of it.
  Division(const Program& program, ConeFinder& finder, std::size_t whole)
      : program_(program),
        finder_(finder),
        must_(whole > static_cast<std::size_t>(max_wires)),
        limit_(must_ ? HUGE_VAL : amplitudes(whole) / part_costs().least_gain) {}

  // No drafts where one state is as good.
  std::vector<Draft> run() {
    const int count = static_cast<int>(program_.measurements.size());
    for (int m = 0; m < count && !is_hopeless(); ++m) {
      const Measurement& measurement = program_.measurements[m];
      if (measurement.kind != MeasurementKind::expval) {
        add({m}, seen_by(measurement));
        continue;
      }
      if (measurement.terms.empty()) everywhere_.push_back({m});
      for (int t = 0; t < static_cast<int>(measurement.terms.size()) && !is_hopeless(); ++t)
        add({m, t}, seen_by(measurement.terms[t]));
    }
    if (is_hopeless() || drafts_.size() < 2) return {};
    drafts_[0].units.insert(drafts_[0].units.end(), everywhere_.begin(), everywhere_.end());
    return std::move(drafts_);
  }

 private:
  bool is_hopeless() const {
    const auto gates = static_cast<Index>(program_.gates.size());
    return cost_ > limit_ || (!must_ && finder_.visited() > most_visits * (gates + 100));
  }

  void add(Unit unit, const std::vector<WireLetter>& seen) {
    if (seen.empty()) return everywhere_.push_back(unit);
    const auto [at, is_new] = known_.try_emplace(key_of(seen), 0);
    if (is_new) at->second = place(seen);
    Draft& draft = drafts_[at->second];
    draft.units.push_back(unit);
    if (is_new) draft.seen.insert(draft.seen.end(), seen.begin(), seen.end());
  }

  // The draft whose state holds this cone at least expense, or a new one.
  std::size_t place(const std::vector<WireLetter>& seen) {
    const Cone cone = finder_.find(seen);
    const WireSet wires = set_of(cone.wires, program_.num_wires);
    std::size_t best = drafts_.size();
    double least = amplitudes(cone.wires.size()) + part_costs().of_part;
    for (std::size_t d = drafts_.size(); d-- > 0 && drafts_.size() - d <= most_candidates;) {
      const std::size_t size = size_of_union(drafts_[d].wires, wires);
      if (size > static_cast<std::size_t>(max_wires)) continue;
      const double more = amplitudes(size) - amplitudes(drafts_[d].num_wires);
      if (more >= least) continue;
      least = more;
      best = d;
      if (more == 0) break;
    }
    cost_ += least;
    if (best == drafts_.size()) drafts_.push_back({WireSet(wires.size(), 0), 0, {}, {}});
    Draft& draft = drafts_[best];
    for (std::size_t i = 0; i < wires.size(); ++i) draft.wires[i] |= wires[i];
    draft.num_wires = size_of_union(draft.wires, wires);
    return best;
  }

  const Program& program_;
  ConeFinder& finder_;
  bool must_;
  double limit_;
  double cost_ = 0;
  std::vector<Draft> drafts_;
  std::vector<Unit> everywhere_;  // what sees no wires
  std::unordered_map<std::string, std::size_t> known_;
};

// Collects parts, equal ones as one batch.
class PartList {
 public:
  explicit PartList(const Program& whole) { parts_.links = static_cast<int>(whole.inputs.size()); }

  void add(Program program, std::vector<ResultSpan> real, std::vector<ResultSpan> complex, bool feeds_links) {
    CompactInputs compact = compact_inputs(program);
    // Matrices and states are read where they are, by one member.
    const bool alone =
        std::any_of(program.inputs.begin(), program.inputs.end(), [](const InputSpec& i) { return i.is_complex; });
    PartMember member{std::move(compact.columns), std::move(real), std::move(complex)};
    const ProgramHandle handle = register_program(std::move(program));
    // One that reads links comes after those that feed them.
    const bool reads_links = std::count(compact.inputs.begin(), compact.inputs.end(), parts_.links) > 0;
    const auto [at, is_new] = known_.try_emplace({handle->id, compact.inputs, feeds_links}, parts_.parts.size());
    if (is_new || alone || reads_links) {
      at->second = parts_.parts.size();
      parts_.parts.push_back({handle, std::move(compact.inputs), {}, feeds_links});
    }
    parts_.parts[at->second].members.push_back(std::move(member));
  }

  Parts take(Index num_links) {
    parts_.num_links = num_links;
    return std::move(parts_);
  }

 private:
  struct Key {
    std::int64_t id;
    std::vector<int> inputs;
    bool feeds_links;
    auto operator<=>(const Key&) const = default;
  };

  Parts parts_;
  std::map<Key, std::size_t> known_;
};

// What a draft measures, as measurements of a program, and where the results go.
struct DraftMeasurements {
  std::vector<Measurement> measurements;
  std::vector<ResultSpan> real;
  std::vector<ResultSpan> complex;
};

DraftMeasurements measured_by(const Program& program, const std::vector<Unit>& units, const std::vector<Index>& first) {
  std::map<int, Measurement> found;
  for (const Unit& unit : units) {
    const Measurement& whole = program.measurements[unit.measurement];
    Measurement& part = found.try_emplace(unit.measurement, Measurement{whole.kind, whole.wires, {}}).first->second;
    if (unit.term < 0) {
      part.terms = whole.terms;
    } else {
      part.terms.push_back(whole.terms[unit.term]);
    }
  }
  DraftMeasurements measured;
  Index next[2] = {0, 0};
  for (auto& [m, part] : found) {
    const bool is_complex = measurement_info(part.kind).is_complex;
    const Index size = result_size(part, program.num_wires);
    (is_complex ? measured.complex : measured.real).push_back({next[is_complex ? 1 : 0], first[m], size});
    next[is_complex ? 1 : 0] += size;
    measured.measurements.push_back(std::move(part));
  }
  return measured;
}

Parts divide(const Program& program, ConeFinder& finder, const std::vector<Draft>& drafts) {
  const std::vector<Index> first = program.first_results();
  PartList list(program);
  for (const Draft& draft : drafts) {
    DraftMeasurements measured = measured_by(program, draft.units, first);
    const Cone cone = finder.find(draft.seen);
    try {
      list.add(subprogram(program, cone, std::move(measured.measurements)), std::move(measured.real),
               std::move(measured.complex), false);
    } catch (const TooManyWires& error) {
      throw TooManyWires(draft.units[0].measurement, error.wires);
    }
  }
  return list.take(0);
}

Parts cut(const Program& program, const CutCone& cutter) {
  PartList list(program);
  Index link = 0;
  for (Program& before : cutter.befores()) {
    list.add(std::move(before), {{0, link, 1}}, {}, true);
    ++link;
  }
  Program rest = cutter.rest();
  std::vector<ResultSpan> results;  // an expectation value each
  for (Index r = 0; r < rest.real_results(); ++r) results.push_back({r, r, 1});
  list.add(std::move(rest), std::move(results), {}, false);
  return list.take(link);
}

std::vector<WireLetter> seen_by_all(const Program& program) {
  std::vector<WireLetter> seen;
  for (const Measurement& m : program.measurements) {
    const std::vector<WireLetter> more = seen_by(m);
    seen.insert(seen.end(), more.begin(), more.end());
  }
  return seen;
}

std::string too_many_wires(int measurement, int wires) {
  const std::string what = measurement < 0 ? "what is measured" : "measurement " + std::to_string(measurement);
  return "ketgrad: " + what + " depends on " + std::to_string(wires) + " wires, at most " + std::to_string(max_wires) +
         " are possible";
}

}  // namespace

const PartCosts& part_costs() { return costs_in_use; }

void set_part_costs(const PartCosts& costs) { costs_in_use = costs; }

TooManyWires::TooManyWires(int measurement, int wires)
    : measurement(measurement), wires(wires), message_(too_many_wires(measurement, wires)) {}

std::vector<int> measured_wires(const PlannedProgram& planned) {
  const std::vector<Measurement>& measurements = planned.program.measurements;
  std::vector<int> found(measurements.size(), planned.has_parts() ? 0 : planned.program.num_wires);
  const std::vector<Index> first = planned.program.first_results();
  const auto raise = [](int& to, int wires) { to = std::max(to, wires); };
  for (const Part& part : planned.parts.parts) {
    const std::vector<int> of_part = measured_wires(*part.program);
    const int wires = of_part.empty() ? 0 : *std::max_element(of_part.begin(), of_part.end());
    for (std::size_t m = 0; m < measurements.size(); ++m) {
      const auto begins = [&](const ResultSpan& span) { return span.to == first[m]; };
      const bool is_complex = measurement_info(measurements[m].kind).is_complex;
      for (const PartMember& member : part.members) {
        const std::vector<ResultSpan>& spans = is_complex ? member.complex : member.real;
        if (part.feeds_links || std::any_of(spans.begin(), spans.end(), begins)) raise(found[m], wires);
      }
    }
  }
  return found;
}

Decomposition decompose(const Program& program) {
  if (program.measurements.empty() || program.measures_all_wires()) {
    if (program.num_wires > max_wires) throw TooManyWires(-1, program.num_wires);
    return {};
  }
  const bool is_small = program.num_wires <= part_costs().most_kept;
  if (is_small && !may_have_parts(static_cast<std::size_t>(program.num_wires))) return {};
  ConeFinder finder(program);
  const std::vector<WireLetter> seen = seen_by_all(program);
  Cone whole = finder.find(seen);
  const auto num_left_out = static_cast<int>(program.gates.size() - whole.gates.size());
  if (may_have_parts(whole.wires.size()) && !has_fixed_inside(program)) {
    const std::vector<Draft> drafts = Division(program, finder, whole.wires.size()).run();
    if (!drafts.empty()) return {divide(program, finder, drafts), {}, {}, num_left_out};
    const CutCone cutter(program, finder, whole);
    if (cutter.is_cut()) return {cut(program, cutter), {}, {}, num_left_out};
  }
  if (whole.wires.size() > static_cast<std::size_t>(max_wires))
    throw TooManyWires(-1, static_cast<int>(whole.wires.size()));
  if (whole.wires.empty() && program.num_wires > 0) whole.wires.push_back(0);  // a state has one wire at least
  if (whole.wires.size() == static_cast<std::size_t>(program.num_wires) || is_small) return {};
  return {{}, subprogram(program, whole, program.measurements), whole.gates, num_left_out};
}

}  // namespace ketgrad
