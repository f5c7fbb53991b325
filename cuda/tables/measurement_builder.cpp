#include "cuda/tables/measurement_builder.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/tables/affine.h"
#include "program/measurement_table.h"

namespace ketgrad::cuda {

void MeasurementBuilder::add(const PlannedMeasurement& m) {
  TableMeasurement found;
  found.kind = m.measurement->kind;
  found.first_result = m.first_result;
  for (const PlannedTerm& term : m.terms) {
    ObservableTerm t{values_.add_coefficient(*term.term), term.pauli_word, {}};
    for (const PlannedFactor& f : term.factors) t.factors.push_back(factor_of(f));
    found.terms.push_back(std::move(t));
  }
  const bool is_expval = found.kind == MeasurementKind::expval;
  const bool observes = measurement_info(found.kind).subject == Subject::observable;
  if (!observes) {
    found.groups = append_map(tables_, m.groups);
    found.offsets = append_map(tables_, m.offsets);
  }
  tables_.only_pauli_words &= is_expval && m.terms.empty();
  tables_.needs_scratch |= observes && (!is_expval || !m.terms.empty());
  tables_.measurements.push_back(std::move(found));
}

ObservableFactor MeasurementBuilder::factor_of(const PlannedFactor& f) {
  ObservableFactor found;
  found.kind = f.factor->kind;
  found.input = f.factor->input;
  found.groups = append_map(tables_, f.groups);
  found.offsets = append_map(tables_, f.offsets);
  found.kept = f.kept;
  if (found.kind == FactorKind::sparse) add_sparse(found, *f.factor, f.offsets.size());
  return found;
}

void MeasurementBuilder::add_sparse(ObservableFactor& found, const Factor& factor, Index size) {
  found.entry_rows = append(tables_.entries, factor.rows);
  found.entry_columns = append(tables_.entries, factor.columns);
  add_lines(factor.rows, size, found.row_starts, found.row_entries);
  add_lines(factor.columns, size, found.column_starts, found.column_entries);
}

// The entries of each row, or of each column; entry k is in line line_of[k].
void MeasurementBuilder::add_lines(const std::vector<Index>& line_of, Index size, Range& starts, Range& entries) {
  std::vector<std::vector<std::int64_t>> lines(size);
  for (std::size_t k = 0; k < line_of.size(); ++k) lines[line_of[k]].push_back(static_cast<Index>(k));
  std::vector<std::int64_t> ends{0};
  std::vector<std::int64_t> sorted;
  for (const auto& line : lines) {
    sorted.insert(sorted.end(), line.begin(), line.end());
    ends.push_back(static_cast<std::int64_t>(sorted.size()));
  }
  starts = append(tables_.entries, ends);
  entries = append(tables_.entries, sorted);
}

}  // namespace ketgrad::cuda
