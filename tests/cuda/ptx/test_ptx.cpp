// The interpreter itself, on PTX written by hand: that instructions give what PTX says, and that everything it is to
// find is found, in any order of threads.
#include <bit>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "ptx/fault.h"
#include "ptx/machine.h"
#include "ptx/parser.h"

namespace ketgrad::testing {
namespace {

using ptx::Fault;
using ptx::Grid;
using ptx::Machine;
using ptx::Program;

// A file with one kernel, which gets an array. Its registers have the names that nvcc gives them.
std::string file(const std::string& body, const std::string& before = "", const std::string& bounds = "") {
  return ".version 8.0\n.target sm_80\n.address_size 64\n"
         ".extern .shared .align 16 .b8 shared[];\n" +
         before + ".visible .entry kernel(.param .u64 kernel_param_0)\n" + bounds +
         "{\n"
         ".reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .f32 %f<10>; .reg .f64 "
         "%fd<9>;\n"
         "ld.param.u64 %rd0, [kernel_param_0];\n"
         "mov.u32 %r0, %tid.x;\n"
         "mul.wide.u32 %rd1, %r0, 4;\n"
         "add.s64 %rd2, %rd0, %rd1;\n"  // this thread's element of 4 bytes
         "cvt.u32.u64 %r1, %rd1;\n" +   // and its offset
         body +
         "\nret;\n}\n";
}

struct Order {
  std::uint64_t seed = 0;
  int quantum = 0;
};

template <class T>
void run(const std::string& text, std::vector<T>& array, const Grid& grid, const Order& order = {}, int launches = 1) {
  Program program;
  ptx::parse(program, "test.ptx", text);
  // Exactly as large as the array is, for the address sanitizer.
  const std::unique_ptr<T[]> memory(new T[array.size()]);
  std::copy(array.begin(), array.end(), memory.get());
  T* address = memory.get();
  const void* arguments[] = {&address};
  Machine machine(program);
  machine.seed(order.seed);
  machine.set_quantum(order.quantum);
  for (int k = 0; k < launches; ++k) machine.launch(program.kernels.at("kernel"), grid, arguments);
  std::copy(memory.get(), memory.get() + array.size(), array.begin());
}

template <class F>
void for_all_orders(const F& f) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    for (const int quantum : {0, 1, 5, 40}) f(Order{seed, quantum});
  }
}

// Two warps, and as many elements.
constexpr int threads = 64;
constexpr Grid two_warps{1, threads, 512};

std::vector<int> result_of(const std::string& body, const Order& order = {}, const Grid& grid = two_warps) {
  std::vector<int> array(threads);
  run(file(body), array, grid, order);
  return array;
}

void check_fault(const std::string& text, const std::string& part, const Grid& grid = two_warps) {
  for_all_orders([&](const Order& order) {
    std::vector<int> array(threads);
    CHECK_THROWS(Fault, run(text, array, grid, order), part);
  });
}

void check_finding(const std::string& body, const std::string& part, const Grid& grid = two_warps) {
  check_fault(file(body), part, grid);
}

// --- what instructions give ------------------------------------------------------------------------------------------

// The bits that one thread leaves in a register of 64, or of 32, bits.
std::uint64_t value_of(const std::string& statements, bool is_wide) {
  const std::string store = is_wide ? "st.global.u64 [%rd0], %rd9;" : "st.global.u32 [%rd0], %r9;";
  std::vector<std::uint64_t> array(1);
  run(file("setp.ne.s32 %p8, %r0, 0;\n@%p8 ret;\n" + statements + store), array, {1, 32, 0});
  return array[0];
}

void check_value(const std::string& statements, std::uint64_t expected, bool is_wide = false) {
  const std::uint64_t value = value_of(statements, is_wide);
  CHECK(value == expected);
  if (value != expected) note(statements + ": " + std::to_string(value) + ", not " + std::to_string(expected));
}

void check_int(const std::string& statements, int expected) {
  check_value(statements, static_cast<std::uint32_t>(expected));
}
void check_wide(const std::string& statements, std::int64_t expected) {
  check_value(statements, static_cast<std::uint64_t>(expected), true);
}
void check_float(const std::string& statements, float expected) {
  check_value(statements + "mov.b32 %r9, %f9;", std::bit_cast<std::uint32_t>(expected));
}

TEST(integers) {
  check_int("add.s32 %r9, 2147483647, 1;", std::numeric_limits<int>::min());
  check_int("sub.s32 %r9, 3, 5;", -2);
  check_int("mul.lo.s32 %r9, 65537, 65537;", 131073);
  check_int("mul.hi.u32 %r9, -1, -1;", -2);
  check_int("mad.lo.s32 %r9, -3, 5, 7;", -8);
  check_int("div.s32 %r9, -7, 2;", -3);
  check_int("rem.s32 %r9, -7, 2;", -1);
  check_int("div.u32 %r9, -1, 2;", 2147483647);
  check_int("div.s32 %r9, -2147483648, -1;", std::numeric_limits<int>::min());
  check_int("neg.s32 %r9, 5;", -5);
  check_int("min.s32 %r9, -1, 1;", -1);
  check_int("max.u32 %r9, -1, 1;", -1);
  check_wide("mul.wide.s32 %rd9, -2, 3;", -6);
  check_wide("mul.wide.u32 %rd9, -2, 3;", 12884901882);
  check_wide("add.s64 %rd9, 4294967295, 1;", 4294967296);
  check_wide("mul.lo.s64 %rd9, 4294967296, -3;", -12884901888);
}

TEST(bits) {
  check_int("and.b32 %r9, 12, 10;", 8);
  check_int("or.b32 %r9, 12, 10;", 14);
  check_int("xor.b32 %r9, 12, 10;", 6);
  check_int("not.b32 %r9, 0;", -1);
  check_int("shl.b32 %r9, 1, 31;", std::numeric_limits<int>::min());
  check_int("shl.b32 %r9, 1, 32;", 0);
  check_int("shr.s32 %r9, -8, 1;", -4);
  check_int("shr.s32 %r9, -8, 40;", -1);
  check_int("shr.u32 %r9, -8, 40;", 0);
  check_int("popc.b64 %r9, -1;", 64);
  check_int("clz.b64 %r9, 1;", 63);
  check_wide("bfi.b64 %rd9, 5, -1, 4, 3;", -1 - 32);
  check_wide("shr.u64 %rd9, -1, 63;", 1);
  check_wide("mov.b64 %rd9, {1, 2};", 8589934593);
  check_int("mov.b64 {%r8, %r9}, 8589934593;", 2);
}

TEST(carries) {
  check_int("add.cc.u32 %r8, -1, 1; addc.u32 %r9, 5, 5;", 11);
  check_int("sub.cc.u32 %r8, 0, 1; subc.u32 %r9, 5, 5;", -1);
  check_int("mad.lo.cc.u32 %r8, -1, 1, 1; madc.hi.u32 %r9, 65536, 65536, 7;", 9);
  check_int("add.cc.u32 %r8, 1, 1; addc.cc.u32 %r8, -1, 0; addc.u32 %r9, 0, 0;", 0);
}

// 1 is 3F800000, 2 is 40000000, NaN 7FC00000.
TEST(floats) {
  check_float("add.f32 %f9, 0f3F800000, 0f40000000;", 3);
  check_float("fma.rn.f32 %f9, 0f40000000, 0f40000000, 0f3F800000;", 5);
  check_float("div.rn.f32 %f9, 0f3F800000, 0f40000000;", 0.5);
  check_float("neg.f32 %f9, 0f3F800000;", -1);
  check_float("abs.f32 %f9, 0fBF800000;", 1);
  check_float("cvt.rn.f32.s32 %f9, -3;", -3);
  check_float("cvt.rn.f32.f64 %f9, 0d3FE0000000000000;", 0.5);
  check_int("cvt.rni.s32.f32 %r9, 0f40200000;", 2);           // 2.5
  check_int("cvt.rzi.s32.f64 %r9, 0dC00C000000000000;", -3);  // -3.5
  check_int("cvt.rzi.s32.f32 %r9, 0f7FC00000;", 0);
  check_int("cvt.rzi.s32.f32 %r9, 0f7F800000;", std::numeric_limits<int>::max());
  check_wide("cvt.f64.f32 %fd0, 0f40000000; mov.b64 %rd9, %fd0;", std::bit_cast<std::int64_t>(2.0));
}

TEST(conversions_of_integers) {
  check_wide("mov.u32 %r8, -1; cvt.s64.s32 %rd9, %r8;", -1);
  check_wide("mov.u32 %r8, -1; cvt.u64.u32 %rd9, %r8;", 4294967295);
  check_int("mov.u64 %rd8, 4294967298; cvt.u32.u64 %r9, %rd8;", 2);
  check_int("mov.u32 %r8, 65537; cvt.u16.u32 %rs0, %r8; cvt.u32.u16 %r9, %rs0;", 1);
}

TEST(comparisons) {
  const auto selected = [](const std::string& comparison) { return comparison + "selp.b32 %r9, 1, 0, %p0;"; };
  check_int(selected("setp.lt.s32 %p0, -1, 1;"), 1);
  check_int(selected("setp.lt.u32 %p0, -1, 1;"), 0);
  check_int(selected("setp.eq.f32 %p0, 0f7FC00000, 0f7FC00000;"), 0);
  check_int(selected("setp.ne.f32 %p0, 0f7FC00000, 0f3F800000;"), 0);
  check_int(selected("setp.neu.f32 %p0, 0f7FC00000, 0f3F800000;"), 1);
  check_int(selected("setp.ltu.f32 %p0, 0f40000000, 0f3F800000;"), 0);
  check_int(selected("setp.ge.s64 %p0, 5, 5; not.pred %p0, %p0;"), 0);
  check_int(selected("mov.pred %p1, -1; mov.pred %p2, 0; xor.pred %p0, %p1, %p2;"), 1);
}

// --- threads that part, and meet -------------------------------------------------------------------------------------

// Each thread goes around as often as its number says; odd ones leave early.
TEST(loops_of_any_length) {
  for_all_orders([](const Order& order) {
    const std::vector<int> found = result_of(R"(
      mov.u32 %r2, 0;
      mov.u32 %r3, 0;
      and.b32 %r4, %r0, 1;
      setp.eq.s32 %p0, %r4, 1;
    $again:
      setp.ge.u32 %p1, %r2, %r0;
      @%p1 bra $done;
      add.s32 %r3, %r3, %r2;
      add.s32 %r2, %r2, 1;
      @%p0 bra $done;
      bra.uni $again;
    $done:
      st.global.u32 [%rd2], %r3;)",
                                             order);
    for (int t = 0; t < threads; ++t) CHECK(found[t] == (t % 2 == 1 ? 0 : t * (t - 1) / 2));
  });
}

TEST(shuffles) {
  for_all_orders([](const Order& order) {
    const std::vector<int> found = result_of(R"(
      shfl.sync.bfly.b32 %r2|%p0, %r0, 5, 31, -1;
      shfl.sync.idx.b32 %r3|%p0, %r2, 1, 31, -1;
      mad.lo.s32 %r4, %r3, 100, %r2;
      st.global.u32 [%rd2], %r4;)",
                                             order);
    for (int t = 0; t < threads; ++t) CHECK(found[t] == (t / 32 * 32 + 4) * 100 + (t ^ 5));
  });
}

// A function with an array of its own, called by a third of the threads.
TEST(calls) {
  const std::string function = R"(
    .func (.param .b32 func_retval0) twice(.param .b32 twice_param_0, .param .b64 twice_param_1)
    {
      .local .align 8 .b8 array[16];
      .reg .b32 %r<3>; .reg .b64 %rd<3>; .reg .b64 %SPL;
      mov.u64 %SPL, array;
      add.u64 %rd1, %SPL, 8;
      ld.param.u32 %r1, [twice_param_0];
      ld.param.u64 %rd0, [twice_param_1+0];
      st.local.u32 [%rd1+4], %r1;
      ld.local.u32 %r2, [array+12];
      add.s32 %r2, %r2, %r1;
      st.param.b32 [func_retval0+0], %r2;
      ret;
    })";
  const std::string body = R"(
    rem.u32 %r2, %r0, 3;
    setp.ne.s32 %p0, %r2, 0;
    mov.u32 %r3, -1;
    @%p0 bra $skip;
    {
      .param .b32 param0;
      st.param.b32 [param0+0], %r0;
      .param .b64 param1;
      st.param.b64 [param1+0], %rd0;
      .param .b32 retval0;
      call.uni (retval0), twice, (param0, param1);
      ld.param.b32 %r3, [retval0+0];
    }
  $skip:
    st.global.u32 [%rd2], %r3;)";
  for_all_orders([&](const Order& order) {
    std::vector<int> found(threads);
    run(file(body, function), found, two_warps, order);
    for (int t = 0; t < threads; ++t) CHECK(found[t] == (t % 3 == 0 ? 2 * t : -1));
  });
}

// --- races -----------------------------------------------------------------------------------------------------------

const std::string place = ".loc 1 7 3\n";
const std::string barrier = ".loc 2 46 3, function_name $x, inlined_at 1 8 5\nbar.sync 0;\n";
const std::string write_shared = "mov.u32 %r2, shared; add.s32 %r2, %r2, %r1; st.shared.u32 [%r2], %r0;\n";
// What the next thread has written; of the last one, what the first has.
const std::string read_shared = R"(add.s32 %r3, %r1, 4; and.b32 %r3, %r3, 255; ld.shared.u32 %r4, [%r3];
st.global.u32 [%rd2], %r4;
)";

std::string with_files(const std::string& body) {
  return file(body) + ".file 1 \"a/kernel.cu\"\n.file 2 \"device.h\"\n";
}

TEST(races_in_shared_memory) {
  for_all_orders([](const Order& order) {
    const std::vector<int> found = result_of(write_shared + barrier + read_shared + barrier + write_shared, order);
    for (int t = 0; t < threads; ++t) CHECK(found[t] == (t + 1) % threads);
  });
  check_fault(with_files(place + write_shared + read_shared), "kernel, kernel.cu:7, line ");
  check_finding(write_shared + read_shared, "without a barrier after a write of thread");
  check_finding(write_shared + barrier + read_shared + write_shared, "without a barrier after a");
  check_finding("st.shared.u32 [shared+8], %r0;", "without a barrier after a write of thread");
}

TEST(barriers_taken_out) {
  Program program;
  ptx::parse(program, "test.ptx", with_files(write_shared + barrier + read_shared));
  ptx::remove_barriers(program, "kernel", "kernel.cu:8");
  std::vector<int> array(threads);
  int* address = array.data();
  const void* arguments[] = {&address};
  CHECK_THROWS(Fault, Machine(program).launch(0, two_warps, arguments), "without a barrier after a write of thread");
  CHECK_THROWS(Fault, ptx::remove_barriers(program, "kernel", "kernel.cu:9"), "there is no barrier at kernel.cu:9");
}

TEST(races_in_global_memory) {
  const std::string write = "st.global.u32 [%rd2], %r0;\n";
  const std::string read = "xor.b64 %rd3, %rd1, 4; add.s64 %rd3, %rd0, %rd3; ld.global.u32 %r5, [%rd3];\n";
  std::vector<int> array(threads);
  for_all_orders([&](const Order& order) {
    run(file(write + barrier + read), array, two_warps, order, 3);
    run(file(read), array, {3, threads, 0}, order);
  });
  check_finding(write + read, "without a barrier after a write of thread");
  check_finding(read + write, "without a barrier after a");
  check_finding(read + barrier + write, "of another block", {2, threads, 0});
  check_finding(write, "without a barrier after a write of another block", {2, threads, 0});
  check_finding("st.global.u32 [%rd0], 1;", "without a barrier after a write of thread");
  check_finding("atom.global.add.f64 %fd0, [%rd0], 0d3FF0000000000000;", "without a barrier after a write of thread");
  check_finding(write + barrier + "ld.global.nc.u32 %r5, [%rd2];", "reads as constant");
  check_finding("ld.global.nc.u32 %r5, [%rd2];" + barrier + write, "reads as constant");
}

// --- memory ----------------------------------------------------------------------------------------------------------

TEST(places_in_memory) {
  check_finding("ld.shared.u32 %r2, [shared];", "reads what no thread of the block has written");
  check_finding(write_shared, "but the launch asked for 128", {1, threads, 128});
  check_finding("mov.u32 %r2, 2; ld.shared.u32 %r3, [%r2];", "misaligned");
  check_finding("ld.global.u32 %r3, [%rd2+2];", "misaligned");
  check_finding("ld.global.v2.u32 {%r3, %r4}, [%rd2];", "misaligned");
  check_finding("ld.global.u32 %r3, [%rd2+4];", "which nobody has allocated");
  check_finding("st.global.u32 [%rd2+4], %r3;", "which nobody has allocated");
  check_finding("ld.global.u32 %r3, [%rd2+-4];", "which nobody has allocated");
  check_finding("mov.u64 %rd3, 0; ld.global.u32 %r3, [%rd3];", "which nobody has allocated");
  check_finding(".local .align 8 .b8 array[16]; ld.local.u32 %r3, [array+16];", "leaves its local memory");
  check_finding("ld.param.u64 %rd3, [kernel_param_0+64];", "beyond the parameters");
  check_finding("div.s32 %r3, %r1, %r0;", "divides by zero");
}

// --- barriers, shuffles, launches ------------------------------------------------------------------------------------

TEST(threads_that_do_not_come) {
  const std::string odd = "and.b32 %r2, %r0, 1; setp.eq.s32 %p0, %r2, 1;\n";
  check_finding(odd + "@%p0 ret; bar.sync 0;", "waits at a barrier that another thread");
  check_finding("setp.gt.u32 %p0, %r0, 31; @%p0 ret; bar.sync 0;", "waits at a barrier that another thread");
  check_finding(odd + "@%p0 bar.sync 0; @!%p0 bar.sync 0;", "another barrier or shuffle than the one");
  check_finding(odd + "@%p0 ret; shfl.sync.bfly.b32 %r3|%p1, %r0, 1, 31, -1;",
                "waits in a shuffle that another thread");
  check_finding(
      odd + "@%p0 shfl.sync.bfly.b32 %r3|%p1, %r0, 1, 31, -1;\n@!%p0 shfl.sync.bfly.b32 %r3|%p1, %r0, 1, 31, -1;",
      "another barrier or shuffle than the one");
  check_finding("shfl.sync.bfly.b32 %r3|%p1, %r0, 1, 31, 255;", "shuffles within less than a warp");
}

TEST(launches_that_no_gpu_makes) {
  check_fault(file("", "", ".maxntid 32, 1, 1\n.minnctapersm 2\n"),
              "blocks of 64 threads: whole warps of 32, at most 32");
  check_finding("", "blocks of 33 threads", {1, 33, 0});
  check_finding("", "launched with 0 blocks", {0, 32, 0});
}

// --- what is not known -----------------------------------------------------------------------------------------------

void check_refused(const std::string& text, const std::string& part) {
  Program program;
  CHECK_THROWS(Fault, ptx::parse(program, "test.ptx", text), part);
}

void check_unknown(const std::string& body, const std::string& part) { check_refused(file(body), part); }

TEST(unknown_ptx) {
  check_unknown("tanh.approx.f32 %f1, %f2;", "unknown instruction tanh.approx.f32 in kernel");
  check_unknown("add.sat.s32 %r1, %r1, 1;", "unknown instruction add.sat.s32");
  check_unknown("ld.volatile.global.u32 %r1, [%rd2];", "unknown instruction ld.volatile.global.u32");
  check_unknown("st.global.u8 [%rd2], %rs0;", "unknown instruction st.global.u8");
  check_unknown("red.global.add.f64 [%rd0], %fd0;", "unknown instruction red.global.add.f64");
  check_unknown("setp.eq.s32 %p0|%p1, %r1, 1;", "unknown instruction setp.eq.s32");
  check_unknown("shfl.sync.up.b32 %r3|%p1, %r0, 1, 0, -1;", "unknown instruction shfl.sync.up.b32");
  check_unknown("bar.sync 1;", "unknown form of bar.sync");
  check_unknown("add.s32 %r1, %rd1, 1;", "unknown form of add.s32");
  check_unknown("mov.u32 %tid.x, 1;", "unknown form of mov.u32");
  check_unknown("mov.u32 %r1, %smid;", "unknown register %smid");
  check_unknown("bra $nowhere;", "no label $nowhere");
  check_unknown(".maxnreg 3;", "unknown directive .maxnreg");
  check_refused(file("", ".shared .align 4 .b8 array[16];\n"), "test.ptx:5: unknown directive .shared");
  check_refused(file("", "", ".reqntid 64\n"), "unknown directive .reqntid");
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
