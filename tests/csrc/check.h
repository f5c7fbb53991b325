// The smallest test harness that serves: a test file is a list of TEST(name) { ... } and its main() returns
// run_tests(). A failed check is reported and counted, and the test goes on.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace ketgrad::testing {

struct TestCase {
  const char* name;
  void (*run)();
};

inline std::vector<TestCase>& test_cases() {
  static std::vector<TestCase> cases;
  return cases;
}

struct Registration {
  Registration(const char* name, void (*run)()) { test_cases().push_back({name, run}); }
};

inline std::atomic<int> checks_made{0};
inline std::atomic<int> checks_failed{0};

// One broken loop must not bury everything else.
inline bool still_talking() { return checks_failed <= 20; }

inline bool report(bool passed, const char* file, int line, const std::string& what) {
  ++checks_made;
  if (passed) return true;
  ++checks_failed;
  if (still_talking()) std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  return false;
}

// Says more about the check that just failed.
inline void note(const std::string& what) {
  if (still_talking()) std::fprintf(stderr, "  %s\n", what.c_str());
}

inline bool report_near(double value, double expected, double tolerance, const char* text, const char* file, int line) {
  if (std::abs(value - expected) <= tolerance) return report(true, file, line, {});  // NaN is near nothing
  char numbers[128];
  std::snprintf(numbers, sizeof numbers, " is %.17g, not %.17g within %.3g", value, expected, tolerance);
  return report(false, file, line, text + std::string(numbers));
}

// What the call threw must be an E whose message contains `part`.
template <class E, class F>
bool throws(const F& call, const std::string& part, std::string& what) {
  try {
    call();
    what = "nothing was thrown";
  } catch (const E& e) {
    what = "message: " + std::string(e.what());
    return std::string(e.what()).find(part) != std::string::npos;
  } catch (const std::exception& e) {
    what = "another exception: " + std::string(e.what());
  }
  return false;
}

inline int run_tests() {
  for (const TestCase& test : test_cases()) {
    const int before = checks_failed;
    try {
      test.run();
    } catch (const std::exception& e) {
      report(false, test.name, 0, "threw " + std::string(e.what()));
    }
    std::printf("%s %s\n", checks_failed == before ? "ok    " : "FAILED", test.name);
  }
  std::printf("%d checks, %d failed\n", checks_made.load(), checks_failed.load());
  return checks_failed == 0 ? 0 : 1;
}

}  // namespace ketgrad::testing

#define TEST(name)                                                         \
  static void name();                                                      \
  static const ::ketgrad::testing::Registration name##_test(#name, &name); \
  static void name()

#define CHECK(condition) \
  ::ketgrad::testing::report(static_cast<bool>(condition), __FILE__, __LINE__, "not so: " #condition)

#define CHECK_NEAR(value, expected, tolerance) \
  ::ketgrad::testing::report_near(value, expected, tolerance, #value, __FILE__, __LINE__)

#define CHECK_THROWS(Exception, expression, part)                                                                      \
  [&](int line) {                                                                                                      \
    std::string what;                                                                                                  \
    const bool passed = ::ketgrad::testing::throws<Exception>([&] { static_cast<void>(expression); }, part, what);     \
    return ::ketgrad::testing::report(                                                                                 \
        passed, __FILE__, line, #expression " should throw " #Exception " with '" + std::string(part) + "'; " + what); \
  }(__LINE__)
