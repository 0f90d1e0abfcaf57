#pragma once
// For mutate.py: which mutant lives, and operators that it may change: `a + mutant::Change<7, kAdd, kSubtract>() + b`.
#include <type_traits>
extern "C" {
inline __attribute__((visibility("default"))) int zfcuda_mutant = -1;
inline __attribute__((visibility("default"))) int zfcuda_mutant_reached = 0;
}
namespace mutant {
inline __attribute__((noinline, no_sanitize("thread"))) bool is(int number) {
    if (zfcuda_mutant != number) return false;
    zfcuda_mutant_reached = 1;
    return true;
}
enum Operator {
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,
    kModulo,
    kAnd,
    kOr,
    kXor,
    kLeft,
    kRight,
    kSubtractFrom,
    kDivideInto,
    kModuloOf,  // with the operands in the other order
};
template <typename T>
constexpr bool number = std::is_arithmetic_v<T>;
template <typename T>
constexpr bool integer = std::is_integral_v<T>;
template <Operator Which, typename L, typename R>
constexpr bool exists =
    Which <= kGreaterEqual || (number<L> && number<R> && Which <= kDivide) ||
    (integer<L> && integer<R>) ||
    (number<L> && number<R> && (Which == kSubtractFrom || Which == kDivideInto)) ||
    (std::is_pointer_v<L> && integer<R> && (Which == kAdd || Which == kSubtract));
template <Operator Which, typename L, typename R>
inline auto apply(L l, R r) {
    if constexpr (Which == kLess)
        return l < r;
    else if constexpr (Which == kLessEqual)
        return l <= r;
    else if constexpr (Which == kGreater)
        return l > r;
    else if constexpr (Which == kGreaterEqual)
        return l >= r;
    else if constexpr (Which == kAdd)
        return l + r;
    else if constexpr (Which == kSubtract)
        return l - r;
    else if constexpr (Which == kMultiply)
        return l * r;
    else if constexpr (Which == kDivide)
        return l / r;
    else if constexpr (Which == kModulo)
        return l % r;
    else if constexpr (Which == kAnd)
        return l & r;
    else if constexpr (Which == kOr)
        return l | r;
    else if constexpr (Which == kXor)
        return l ^ r;
    else if constexpr (Which == kLeft)
        return l << r;
    else if constexpr (Which == kRight)
        return l >> r;
    else if constexpr (Which == kSubtractFrom)
        return r - l;
    else if constexpr (Which == kDivideInto)
        return l == 0 ? r : r / l;
    else
        return l == 0 ? r : r % l;
}
// Of operands of a product.
template <typename Swizzle>
inline Swizzle other_swizzle(Swizzle swizzle) {
    return swizzle == Swizzle::k128 ? Swizzle::k64 : Swizzle::k128;
}
template <int Number, typename T>
inline T more(T value) {
    if constexpr (integer<T> && !std::is_same_v<T, bool>)
        if (is(Number)) return value + 1;
    return value;
}
template <int Number, Operator Was, Operator Becomes>
struct Change {};
template <typename L, int Number, Operator Was, Operator Becomes>
struct Left {
    L value;
    template <typename R>
    auto with(R right) const {
        using Result = decltype(apply<Was>(value, right));
        if constexpr (exists<Becomes, L, R>)
            if (is(Number)) return static_cast<Result>(apply<Becomes>(value, right));
        return apply<Was>(value, right);
    }
};
#define MUTANT_OPERATOR(symbol)                                                                   \
    template <typename L, int Number, Operator Was, Operator Becomes>                             \
    inline Left<L, Number, Was, Becomes> operator symbol(L value, Change<Number, Was, Becomes>) { \
        return {value};                                                                           \
    }                                                                                             \
    template <typename L, typename R, int Number, Operator Was, Operator Becomes>                 \
    inline auto operator symbol(Left<L, Number, Was, Becomes> left, R right) {                    \
        return left.with(right);                                                                  \
    }
// clang-format off
MUTANT_OPERATOR(<) MUTANT_OPERATOR(+) MUTANT_OPERATOR(-) MUTANT_OPERATOR(*) MUTANT_OPERATOR(/) MUTANT_OPERATOR(%)
MUTANT_OPERATOR(&) MUTANT_OPERATOR(|) MUTANT_OPERATOR(^) MUTANT_OPERATOR(<<) MUTANT_OPERATOR(>>)
// clang-format on
}  // namespace mutant
