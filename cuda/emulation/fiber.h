// Fibers, each with its own stack, of which one runs at a time.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KETGRAD_FIBERS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define KETGRAD_FIBERS_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define KETGRAD_FIBERS_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define KETGRAD_FIBERS_TSAN 1
#endif

// swapcontext() makes a system call for the signal mask, which is most of the cost of a switch; a jump does not.
// Sanitizers and fortified builds take such jumps for broken stacks.
#if !defined(KETGRAD_FIBERS_ASAN) && !defined(KETGRAD_FIBERS_TSAN) && !(__USE_FORTIFY_LEVEL > 0)
#define KETGRAD_FIBERS_JUMP 1
#endif

#if defined(KETGRAD_FIBERS_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace ketgrad::cuda::emulation {

// Pages are allocated on first use. Below the stack is a guard area, of whole pages of any size.
class Stack {
 public:
  static constexpr std::size_t size = std::size_t{256} << 10;

  Stack() : pages_(mmap(nullptr, guard + size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (pages_ == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(bottom(), size, PROT_READ | PROT_WRITE) != 0) {
      munmap(pages_, guard + size);
      throw std::bad_alloc();
    }
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  ~Stack() { munmap(pages_, guard + size); }

  void* bottom() const { return static_cast<char*>(pages_) + guard; }

 private:
  static constexpr std::size_t guard = std::size_t{64} << 10;

  void* pages_;
};

// `body` never returns: a stack that is started again would keep the sanitizer's marks of frames that were never left.
class Fiber {
 public:
  Fiber() = default;  // the caller of leave_for()
  explicit Fiber(void (*body)()) : stack_(std::make_unique<Stack>()), body_(body), entered_(false) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_->bottom();
    context_.uc_stack.ss_size = Stack::size;
    context_.uc_link = nullptr;
    makecontext(&context_, &Fiber::begin, 0);
    context_.uc_stack = {};  // or the address sanitizer clears its marks of the whole stack at every switch
  }

  // Returns when another fiber leaves for this one.
  void leave_for(Fiber& next) {
    departure = {this, &next};
#if defined(KETGRAD_FIBERS_JUMP)
    if (_setjmp(jump_) != 0) return;
    if (std::exchange(next.entered_, true)) _longjmp(next.jump_, 1);
    setcontext(&next.context_);
#else
#if defined(KETGRAD_FIBERS_ASAN)
    __sanitizer_start_switch_fiber(&fake_stack_, next.bottom_, next.size_);
#endif
    swapcontext(&context_, &next.context_);
    arrive();
#endif
  }

 private:
  struct Departure {
    Fiber* from;
    Fiber* to;
  };

  static void begin() {
    Fiber& self = *departure.to;
    self.arrive();
    self.body_();
  }

  void arrive() {
#if defined(KETGRAD_FIBERS_ASAN)
    // The stack of the host's fiber is known only here.
    __sanitizer_finish_switch_fiber(fake_stack_, &departure.from->bottom_, &departure.from->size_);
#endif
  }

  static inline Departure departure{};

  std::unique_ptr<Stack> stack_;
  void (*body_)() = nullptr;
  bool entered_ = true;
  ucontext_t context_{};
  jmp_buf jump_{};
  const void* bottom_ = stack_ ? stack_->bottom() : nullptr;
  std::size_t size_ = Stack::size;
  void* fake_stack_ = nullptr;
};

}  // namespace ketgrad::cuda::emulation
