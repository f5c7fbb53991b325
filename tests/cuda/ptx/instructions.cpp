#include "ptx/instructions.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <utility>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

using std::int16_t, std::int32_t, std::int64_t;
using std::uint16_t, std::uint32_t, std::uint64_t;

template <class T>
T* result_of(Lanes& lanes, const Instruction& instruction, int number = 0) {
  return reinterpret_cast<T*>(lanes.registers + instruction.results[number]);
}

template <class T>
const T* source_of(const Lanes& lanes, const Instruction& instruction, int number) {
  return instruction.sources[number].lanes<T>(lanes.registers);
}

template <class F>
void for_each_lane(LaneMask mask, const F& f) {
  for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

// --- a function of each lane's sources -------------------------------------------------------------------------------

// All lanes at once, which the compiler makes vectors of, where all take part.
template <class F, class R, class... S, std::size_t... k>
void apply_to(R* result, LaneMask mask, std::index_sequence<k...>, const S*... sources) {
  if (mask == all_lanes) {
    R values[warp_size];
    for (int lane = 0; lane < warp_size; ++lane) values[lane] = F{}(sources[lane]...);
    std::memcpy(result, values, sizeof values);
  } else {
    for_each_lane(mask, [&](int lane) { result[lane] = F{}(sources[lane]...); });
  }
}

template <class F, class R, class... S, std::size_t... k>
void apply(Lanes& lanes, const Instruction& i, LaneMask mask, std::index_sequence<k...> numbers) {
  apply_to<F>(result_of<R>(lanes, i), mask, numbers, source_of<S>(lanes, i, k)...);
}

template <class F, class R, class... S>
void apply(Lanes& lanes, const Instruction& i, LaneMask mask) {
  apply<F, R, S...>(lanes, i, mask, std::index_sequence_for<S...>());
}

template <class T>
using Unsigned = std::make_unsigned<T>;

// Integers wrap around; the compiler's signed ones would not.
template <class T>
auto wrapping(T x) {
  if constexpr (std::is_same_v<T, int16_t> || std::is_same_v<T, uint16_t>) {
    return static_cast<uint32_t>(x);  // or it would be promoted to int
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<typename Unsigned<T>::type>(x);
  } else {
    return x;
  }
}

// clang-format off
struct Add { template <class T> T operator()(T a, T b) const { return static_cast<T>(wrapping(a) + wrapping(b)); } };
struct Subtract { template <class T> T operator()(T a, T b) const { return static_cast<T>(wrapping(a) - wrapping(b)); } };
struct Multiply { template <class T> T operator()(T a, T b) const { return static_cast<T>(wrapping(a) * wrapping(b)); } };
struct Negate { template <class T> T operator()(T a) const { return std::is_integral_v<T> ? static_cast<T>(T{} - wrapping(a)) : -a; } };
struct Absolute { template <class T> T operator()(T a) const { return std::fabs(a); } };
struct Divide { template <class T> T operator()(T a, T b) const { return a / b; } };
struct Minimum { template <class T> T operator()(T a, T b) const { return a < b ? a : b; } };
struct Maximum { template <class T> T operator()(T a, T b) const { return a > b ? a : b; } };
struct And { template <class T> T operator()(T a, T b) const { return static_cast<T>(a & b); } };
struct Or { template <class T> T operator()(T a, T b) const { return static_cast<T>(a | b); } };
struct Xor { template <class T> T operator()(T a, T b) const { return static_cast<T>(a ^ b); } };
struct Not { template <class T> T operator()(T a) const { return static_cast<T>(~a); } };
struct Move { template <class T> T operator()(T a) const { return a; } };
struct FusedMultiplyAdd { template <class T> T operator()(T a, T b, T c) const { return std::fma(a, b, c); } };
struct MultiplyAdd { template <class T> T operator()(T a, T b, T c) const { return static_cast<T>(wrapping(a) * wrapping(b) + wrapping(c)); } };
struct CountOnes { uint32_t operator()(uint64_t a) const { return static_cast<uint32_t>(std::popcount(a)); } };
struct CountLeadingZeros { uint32_t operator()(uint64_t a) const { return static_cast<uint32_t>(std::countl_zero(a)); } };
struct HighProduct { uint32_t operator()(uint32_t a, uint32_t b) const { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); } };
// clang-format on

// Of twice the bits.
template <class Accum>
struct AccumProduct {
  template <class T>
  Accum operator()(T a, T b) const {
    return static_cast<Accum>(a) * static_cast<Accum>(b);
  }
};

// Shifts by as many bits as there are, or more, leave nothing but signs.
struct ShiftLeft {
  template <class T>
  T operator()(T a, uint32_t n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(a << n);
  }
};
struct ShiftRight {
  template <class T>
  T operator()(T a, uint32_t n) const {
    constexpr uint32_t most = 8 * sizeof(T) - 1;
    if (n > most) return std::is_signed_v<T> ? static_cast<T>(a >> most) : T{0};
    return static_cast<T>(a >> n);
  }
};

// The low bits of `a` take the place of bits of `b`.
struct InsertBits {
  uint64_t operator()(uint64_t a, uint64_t b, uint32_t position, uint32_t length) const {
    position &= 255;
    length &= 255;
    if (position >= 64) return b;
    const uint64_t ones = length >= 64 ? ~uint64_t{0} : (uint64_t{1} << length) - 1;
    return (b & ~(ones << position)) | ((a & ones) << position);
  }
};

// --- integer division, which a GPU answers with garbage where there is none ------------------------------------------

template <class T, bool remainder>
void divide(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const T* a = source_of<T>(lanes, i, 0);
  const T* b = source_of<T>(lanes, i, 1);
  T* result = result_of<T>(lanes, i);
  for_each_lane(mask, [&](int lane) {
    if (b[lane] == 0) throw Misuse(lane, "divides by zero");
    if (std::is_signed_v<T> && b[lane] == static_cast<T>(-1)) {
      result[lane] = remainder ? T{0} : Negate{}(a[lane]);
    } else {
      result[lane] = remainder ? a[lane] % b[lane] : a[lane] / b[lane];
    }
  });
}

// --- predicates ------------------------------------------------------------------------------------------------------

void set_predicate(Lanes& lanes, const Instruction& i, LaneMask mask, LaneMask value) {
  LaneMask& result = *result_of<LaneMask>(lanes, i);
  result = (result & ~mask) | (value & mask);
}

template <class F>
void combine_predicates(Lanes& lanes, const Instruction& i, LaneMask mask) {
  set_predicate(lanes, i, mask, F{}(*source_of<LaneMask>(lanes, i, 0), *source_of<LaneMask>(lanes, i, 1)));
}

template <class F>
void map_predicate(Lanes& lanes, const Instruction& i, LaneMask mask) {
  set_predicate(lanes, i, mask, F{}(*source_of<LaneMask>(lanes, i, 0)));
}

template <class F, class T>
void compare(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const T* a = source_of<T>(lanes, i, 0);
  const T* b = source_of<T>(lanes, i, 1);
  LaneMask value = 0;
  for (int lane = 0; lane < warp_size; ++lane) value |= LaneMask{F{}(a[lane], b[lane])} << lane;
  set_predicate(lanes, i, mask, value);
}

template <class T>
void select(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const T* a = source_of<T>(lanes, i, 0);
  const T* b = source_of<T>(lanes, i, 1);
  const LaneMask chooses_a = *source_of<LaneMask>(lanes, i, 2);
  T* result = result_of<T>(lanes, i);
  for_each_lane(mask, [&](int lane) { result[lane] = ((chooses_a >> lane) & 1) != 0 ? a[lane] : b[lane]; });
}

// clang-format off
struct Equal { template <class T> bool operator()(T a, T b) const { return a == b; } };
struct Less { template <class T> bool operator()(T a, T b) const { return a < b; } };
struct LessOrEqual { template <class T> bool operator()(T a, T b) const { return a <= b; } };
struct Greater { template <class T> bool operator()(T a, T b) const { return a > b; } };
struct GreaterOrEqual { template <class T> bool operator()(T a, T b) const { return a >= b; } };
// Unlike that of C++ this is false of NaN.
struct Differ { template <class T> bool operator()(T a, T b) const { return a < b || a > b; } };
// clang-format on

// Also true of NaN.
template <class F>
struct OrUnordered {
  template <class T>
  bool operator()(T a, T b) const {
    return F{}(a, b) || a != a || b != b;
  }
};

// --- conversions -----------------------------------------------------------------------------------------------------

template <class D>
struct Convert {
  template <class S>
  D operator()(S x) const {
    return static_cast<D>(x);
  }
};

// clang-format off
struct ToNearest { template <class S> S operator()(S x) const { return std::nearbyint(x); } };
struct TowardZero { template <class S> S operator()(S x) const { return std::trunc(x); } };
// clang-format on

// From a floating-point number to an integer: out of range is the nearest there is, NaN is zero of 32 bits and the
// highest bit of 64.
template <class D, class Rounding>
struct Round {
  template <class S>
  D operator()(S x) const {
    using Limits = std::numeric_limits<D>;
    if (x != x) return sizeof(S) == 8 || sizeof(D) == 8 ? static_cast<D>(D{1} << (8 * sizeof(D) - 1)) : D{0};
    const S rounded = Rounding{}(x);
    if (rounded <= static_cast<S>(Limits::min())) return Limits::min();
    if (rounded >= static_cast<S>(Limits::max())) return Limits::max();
    return static_cast<D>(rounded);
  }
};

// --- pairs and carries -----------------------------------------------------------------------------------------------

void pack(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const auto* low = source_of<uint32_t>(lanes, i, 0);
  const auto* high = source_of<uint32_t>(lanes, i, 1);
  auto* result = result_of<uint64_t>(lanes, i);
  for_each_lane(mask, [&](int lane) { result[lane] = low[lane] | uint64_t{high[lane]} << 32; });
}

void unpack(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const auto* source = source_of<uint64_t>(lanes, i, 0);
  auto* low = result_of<uint32_t>(lanes, i, 0);
  auto* high = result_of<uint32_t>(lanes, i, 1);
  for_each_lane(mask, [&](int lane) {
    const uint64_t value = source[lane];
    low[lane] = static_cast<uint32_t>(value);
    high[lane] = static_cast<uint32_t>(value >> 32);
  });
}

// One more addend is the carry of the instruction before, and one more result that of this one.
template <class F, bool takes_carry, bool leaves_carry>
void with_carry(Lanes& lanes, const Instruction& i, LaneMask mask) {
  const uint32_t* sources[3];
  for (int k = 0; k < 3; ++k) sources[k] = source_of<uint32_t>(lanes, i, k);
  auto* result = result_of<uint32_t>(lanes, i);
  auto* carry = reinterpret_cast<uint32_t*>(lanes.registers + special::carry);
  for_each_lane(mask, [&](int lane) {
    const uint64_t sum = F{}(sources, lane, takes_carry ? carry[lane] : 0);
    result[lane] = static_cast<uint32_t>(sum);
    if (leaves_carry) carry[lane] = static_cast<uint32_t>(sum >> 32) & 1;
  });
}

struct Sum {
  uint64_t operator()(const uint32_t* const* s, int lane, uint64_t carry) const {
    return s[0][lane] + carry + s[1][lane];
  }
};
struct Difference {
  uint64_t operator()(const uint32_t* const* s, int lane, uint64_t borrow) const {
    return uint64_t{s[0][lane]} - s[1][lane] - borrow;
  }
};
struct LowProductSum {
  uint64_t operator()(const uint32_t* const* s, int lane, uint64_t carry) const {
    return uint64_t{s[0][lane] * s[1][lane]} + s[2][lane] + carry;
  }
};
struct HighProductSum {
  uint64_t operator()(const uint32_t* const* s, int lane, uint64_t carry) const {
    return uint64_t{HighProduct{}(s[0][lane], s[1][lane])} + s[2][lane] + carry;
  }
};

// --- the table -------------------------------------------------------------------------------------------------------

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return ".f32";
  if constexpr (std::is_same_v<T, double>) return ".f64";
  if constexpr (std::is_same_v<T, int16_t>) return ".s16";
  if constexpr (std::is_same_v<T, int32_t>) return ".s32";
  if constexpr (std::is_same_v<T, int64_t>) return ".s64";
  if constexpr (std::is_same_v<T, uint16_t>) return ".u16";
  if constexpr (std::is_same_v<T, uint32_t>) return ".u32";
  if constexpr (std::is_same_v<T, uint64_t>) return ".u64";
}

template <class T>
std::string bits_name() {
  return ".b" + std::to_string(8 * sizeof(T));
}

using Table = std::map<std::string, Form, std::less<>>;

template <class F, class R, class... S>
Form form() {
  return {&apply<F, R, S...>, {static_cast<int>(sizeof(R))}, {static_cast<int>(sizeof(S))...}};
}

template <class F, class T>
Form comparison() {
  return {&compare<F, T>, {predicate}, {sizeof(T), sizeof(T)}};
}

template <class T>
void add_arithmetic(Table& table) {
  const std::string type = type_name<T>();
  table["add" + type] = form<Add, T, T, T>();
  table["sub" + type] = form<Subtract, T, T, T>();
  table["neg" + type] = form<Negate, T, T>();
  table["min" + type] = form<Minimum, T, T, T>();
  table["max" + type] = form<Maximum, T, T, T>();
  table["setp.eq" + type] = comparison<Equal, T>();
  table["setp.ne" + type] = comparison<Differ, T>();
  table["setp.lt" + type] = comparison<Less, T>();
  table["setp.le" + type] = comparison<LessOrEqual, T>();
  table["setp.gt" + type] = comparison<Greater, T>();
  table["setp.ge" + type] = comparison<GreaterOrEqual, T>();
  for (const std::string& name : {type, bits_name<T>()}) {
    table["mov" + name] = form<Move, T, T>();
    table["selp" + name] = {&select<T>, {sizeof(T)}, {sizeof(T), sizeof(T), predicate}};
  }
}

template <class T>
void add_floats(Table& table) {
  const std::string type = type_name<T>();
  add_arithmetic<T>(table);
  // NaN is not what PTX says it is for these.
  table.erase("min" + type);
  table.erase("max" + type);
  for (const char* rounding : {"", ".rn"}) {
    table["add" + std::string(rounding) + type] = form<Add, T, T, T>();
    table["sub" + std::string(rounding) + type] = form<Subtract, T, T, T>();
    table["mul" + std::string(rounding) + type] = form<Multiply, T, T, T>();
  }
  table["div.rn" + type] = form<Divide, T, T, T>();
  table["fma.rn" + type] = form<FusedMultiplyAdd, T, T, T, T>();
  table["abs" + type] = form<Absolute, T, T>();
  table["setp.equ" + type] = comparison<OrUnordered<Equal>, T>();
  table["setp.neu" + type] = comparison<OrUnordered<Differ>, T>();
  table["setp.ltu" + type] = comparison<OrUnordered<Less>, T>();
  table["setp.leu" + type] = comparison<OrUnordered<LessOrEqual>, T>();
  table["setp.gtu" + type] = comparison<OrUnordered<Greater>, T>();
  table["setp.geu" + type] = comparison<OrUnordered<GreaterOrEqual>, T>();
}

template <class T>
void add_integers(Table& table) {
  const std::string type = type_name<T>();
  add_arithmetic<T>(table);
  table["mul.lo" + type] = form<Multiply, T, T, T>();
  table["mad.lo" + type] = form<MultiplyAdd, T, T, T, T>();
  table["div" + type] = {&divide<T, false>, {sizeof(T)}, {sizeof(T), sizeof(T)}};
  table["rem" + type] = {&divide<T, true>, {sizeof(T)}, {sizeof(T), sizeof(T)}};
  table["shr" + type] = form<ShiftRight, T, T, uint32_t>();
}

template <class T>
void add_bits(Table& table) {
  const std::string type = bits_name<T>();
  table["and" + type] = form<And, T, T, T>();
  table["or" + type] = form<Or, T, T, T>();
  table["xor" + type] = form<Xor, T, T, T>();
  table["not" + type] = form<Not, T, T>();
  table["shl" + type] = form<ShiftLeft, T, T, uint32_t>();
  table["shr" + type] = form<ShiftRight, T, T, uint32_t>();
  table["setp.eq" + type] = comparison<Equal, T>();
  table["setp.ne" + type] = comparison<Differ, T>();
}

template <class D, class... S>
void add_conversions_to(Table& table) {
  ((table[std::string("cvt") + type_name<D>() + type_name<S>()] = form<Convert<D>, D, S>()), ...);
}

template <class S, class... D>
void add_roundings_of(Table& table) {
  ((table[std::string("cvt.rni") + type_name<D>() + type_name<S>()] = form<Round<D, ToNearest>, D, S>()), ...);
  ((table[std::string("cvt.rzi") + type_name<D>() + type_name<S>()] = form<Round<D, TowardZero>, D, S>()), ...);
  ((table[std::string("cvt.rn") + type_name<S>() + type_name<D>()] = form<Convert<S>, S, D>()), ...);
}

void add_conversions(Table& table) {
  add_conversions_to<uint16_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<int16_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<uint32_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<int32_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<uint64_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<int64_t, int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t>(table);
  add_conversions_to<double, float>(table);
  add_roundings_of<float, int32_t, uint32_t, int64_t, uint64_t>(table);
  add_roundings_of<double, int32_t, uint32_t, int64_t, uint64_t>(table);
  table["cvt.rn.f32.f64"] = form<Convert<float>, float, double>();
}

void add_carries(Table& table) {
  for (const std::string type : {".u32", ".s32", ".b32"}) {
    const std::vector<int> two{4, 4};
    const std::vector<int> three{4, 4, 4};
    table["add.cc" + type] = {&with_carry<Sum, false, true>, {4}, two};
    table["addc" + type] = {&with_carry<Sum, true, false>, {4}, two};
    table["addc.cc" + type] = {&with_carry<Sum, true, true>, {4}, two};
    table["sub.cc" + type] = {&with_carry<Difference, false, true>, {4}, two};
    table["subc" + type] = {&with_carry<Difference, true, false>, {4}, two};
    table["subc.cc" + type] = {&with_carry<Difference, true, true>, {4}, two};
    table["mad.lo.cc" + type] = {&with_carry<LowProductSum, false, true>, {4}, three};
    table["madc.lo" + type] = {&with_carry<LowProductSum, true, false>, {4}, three};
    table["madc.lo.cc" + type] = {&with_carry<LowProductSum, true, true>, {4}, three};
  }
  // The high half of a product of signed numbers is another one.
  table["mad.hi.cc.u32"] = {&with_carry<HighProductSum, false, true>, {4}, {4, 4, 4}};
  table["madc.hi.u32"] = {&with_carry<HighProductSum, true, false>, {4}, {4, 4, 4}};
  table["madc.hi.cc.u32"] = {&with_carry<HighProductSum, true, true>, {4}, {4, 4, 4}};
}

void add_predicates(Table& table) {
  table["and.pred"] = {&combine_predicates<And>, {predicate}, {predicate, predicate}};
  table["or.pred"] = {&combine_predicates<Or>, {predicate}, {predicate, predicate}};
  table["xor.pred"] = {&combine_predicates<Xor>, {predicate}, {predicate, predicate}};
  table["not.pred"] = {&map_predicate<Not>, {predicate}, {predicate}};
  table["mov.pred"] = {&map_predicate<Move>, {predicate}, {predicate}};
}

Table make_table() {
  Table table;
  add_integers<int16_t>(table);
  add_integers<int32_t>(table);
  add_integers<int64_t>(table);
  add_integers<uint16_t>(table);
  add_integers<uint32_t>(table);
  add_integers<uint64_t>(table);
  add_bits<uint16_t>(table);
  add_bits<uint32_t>(table);
  add_bits<uint64_t>(table);
  add_floats<float>(table);
  add_floats<double>(table);
  add_conversions(table);
  add_carries(table);
  add_predicates(table);
  table["mul.wide.u16"] = form<AccumProduct<uint32_t>, uint32_t, uint16_t, uint16_t>();
  table["mul.wide.s16"] = form<AccumProduct<int32_t>, int32_t, int16_t, int16_t>();
  table["mul.wide.u32"] = form<AccumProduct<uint64_t>, uint64_t, uint32_t, uint32_t>();
  table["mul.wide.s32"] = form<AccumProduct<int64_t>, int64_t, int32_t, int32_t>();
  table["mul.hi.u32"] = form<HighProduct, uint32_t, uint32_t, uint32_t>();
  table["popc.b64"] = form<CountOnes, uint32_t, uint64_t>();
  table["clz.b64"] = form<CountLeadingZeros, uint32_t, uint64_t>();
  table["bfi.b64"] = form<InsertBits, uint64_t, uint64_t, uint64_t, uint32_t, uint32_t>();
  table["mov.b64.pack"] = {&pack, {8}, {4, 4}};
  table["mov.b64.unpack"] = {&unpack, {4, 4}, {8}};
  // Generic, global, local and parameters' addresses are all the same here.
  for (const char* space : {"global", "local", "param"}) {
    table[std::string("cvta.") + space + ".u64"] = form<Move, uint64_t, uint64_t>();
    table[std::string("cvta.to.") + space + ".u64"] = form<Move, uint64_t, uint64_t>();
  }
  return table;
}

}  // namespace

const Form* find_form(std::string_view opcode) {
  static const Table table = make_table();
  const auto found = table.find(opcode);
  return found == table.end() ? nullptr : &found->second;
}

}  // namespace ketgrad::ptx
