// The C++ port's own tests: what a caller in this language meets, which the protocol can't say. test.sh builds and
// runs them. No test sleeps: it looks at the table until the state is there.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "keyed_mutex.hpp"

using kmutex::Hold;
using kmutex::KeyedMutex;
using kmutex::Ticket;
using kmutex::UnheldKeyError;
using Locks = KeyedMutex<std::string>;

#define CHECK(what)                                                            \
    if (!(what)) {                                                             \
        std::printf("%s:%d: %s is false: %s\n", __FILE__, __LINE__, __func__, #what); \
        std::exit(1);                                                          \
    }

template <class Call>
static bool unheld(Call call) {
    try {
        call();
    } catch (const UnheldKeyError&) {
        return true;
    }
    return false;
}

static void until_referenced(const Locks& locks, const std::string& key, std::size_t count) {
    for (;; std::this_thread::yield()) {
        const auto references = locks.references();
        const auto found = references.find(key);
        if ((found == references.end() ? 0 : found->second) == count) return;
    }
}

static void waiters_come_in_order() {
    Locks locks;
    locks.lock("a");
    std::vector<int> came;  // written by whoever holds a
    std::vector<std::jthread> threads;
    for (int number = 0; number < 50; ++number) {
        threads.emplace_back([&, number] {
            locks.lock("a");
            came.push_back(number);
            locks.unlock("a");
        });
        until_referenced(locks, "a", number + 2);
    }
    locks.unlock("a");
    threads.clear();
    for (int number = 0; number < 50; ++number) CHECK(came.at(number) == number);
    CHECK(locks.size() == 0);
}

static void a_key_has_one_holder() {
    Locks locks;
    int counts[3] = {};  // each written by whoever holds its key
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&] {
            for (int turn = 0; turn < 300; ++turn) {
                Hold hold(locks, std::to_string(turn % 3));
                ++counts[turn % 3];
            }
        });
    }
    threads.clear();
    CHECK(counts[0] == 400 && counts[1] == 400 && counts[2] == 400);
    CHECK(locks.size() == 0);
}

static void a_stopped_waiter_leaves_from_the_middle() {
    Locks locks;
    locks.lock("a");
    std::optional<Ticket> middle = 0, last;
    std::stop_source stop;
    std::jthread second([&] { middle = locks.lock("a", stop.get_token()); });
    until_referenced(locks, "a", 2);
    std::jthread third([&] { last = locks.lock("a"); });
    until_referenced(locks, "a", 3);
    stop.request_stop();
    second.join();
    CHECK(!middle);
    until_referenced(locks, "a", 2);
    locks.unlock("a");
    third.join();
    CHECK(last);
    locks.unlock("a", *last);
    CHECK(locks.size() == 0);
}

static void a_stop_before_the_call_ends_a_wait_and_no_more() {
    Locks locks;
    std::stop_source stop;
    stop.request_stop();
    const auto held = locks.lock("a", stop.get_token());
    CHECK(held);
    CHECK(!locks.lock("a", stop.get_token()));
    until_referenced(locks, "a", 1);
    locks.unlock("a", *held);
    CHECK(locks.size() == 0);
}

static void a_grant_that_was_first_is_kept() {
    for (int turn = 0; turn < 200; ++turn) {
        Locks locks;
        locks.lock("a");
        std::stop_source stop;
        std::optional<Ticket> got;
        std::jthread waiter([&] { got = locks.lock("a", stop.get_token()); });
        until_referenced(locks, "a", 2);
        locks.unlock("a");
        stop.request_stop();
        waiter.join();
        CHECK(got);
        locks.unlock("a", *got);
        CHECK(locks.size() == 0);
    }
}

static void a_stop_that_meets_an_unlock_loses_no_grant() {
    for (int turn = 0; turn < 200; ++turn) {
        Locks locks;
        locks.lock("a");
        std::stop_source stop;
        std::optional<Ticket> got, behind;
        std::jthread first([&] { got = locks.lock("a", stop.get_token()); });
        until_referenced(locks, "a", 2);
        std::jthread second([&] { behind = locks.lock("a"); });
        until_referenced(locks, "a", 3);
        std::jthread stopper([&] { stop.request_stop(); });
        locks.unlock("a");
        first.join();
        if (got) locks.unlock("a", *got);
        second.join();
        CHECK(behind);
        locks.unlock("a", *behind);
        CHECK(locks.size() == 0);
    }
}

// The grant of the waiter is ended before its thread has woken up, in some of the turns at least.
static void a_grant_may_end_before_its_call_returns() {
    for (int turn = 0; turn < 200; ++turn) {
        Locks locks;
        locks.lock("a");
        std::optional<Ticket> got;
        std::jthread waiter([&] { got = locks.lock("a"); });
        until_referenced(locks, "a", 2);
        locks.unlock("a");
        locks.unlock("a");
        CHECK(locks.size() == 0);
        waiter.join();
        CHECK(got);
        CHECK(unheld([&] { locks.unlock("a", *got); }));
    }
}

static void a_try_leaves_no_trace() {
    Locks locks;
    const auto held = locks.try_lock("a");
    CHECK(held);
    CHECK(!locks.try_lock("a"));
    CHECK(locks.references().at("a") == 1);
    locks.unlock("a");
    CHECK(locks.size() == 0);
}

static void what_is_not_held_is_not_unlocked() {
    Locks locks;
    CHECK(unheld([&] { locks.unlock("a"); }));
    const Ticket old = locks.lock("a");
    locks.unlock("a", old);
    const Ticket held = locks.lock("a");
    CHECK(unheld([&] { locks.unlock("a", old); }));
    CHECK(unheld([&] { locks.unlock("b", held); }));
    CHECK(locks.references().at("a") == 1);
    locks.unlock("a", held);
    CHECK(unheld([&] { locks.unlock("a"); }));
    CHECK(locks.size() == 0);
}

static void a_block_ends_its_own_grant_however_it_is_left() {
    Locks locks;
    try {
        Hold hold(locks, std::string("a"));
        throw std::runtime_error("out of the block");
    } catch (const std::runtime_error&) {
    }
    CHECK(locks.size() == 0);
    Ticket other = 0;
    {
        Hold hold(locks, std::string("a"));
        locks.unlock("a");
        other = locks.lock("a");
    }
    CHECK(locks.references().at("a") == 1);
    locks.unlock("a", other);
}

struct Fragile {
    int name;
    static inline bool breaks = false;
    explicit Fragile(int name) : name(name) {}
    Fragile(const Fragile& other) : name(other.name) {
        if (breaks) throw std::bad_alloc();
    }
    bool operator==(const Fragile&) const = default;
};
struct FragileHash {
    std::size_t operator()(const Fragile&) const { return 0; }  // all keys share it (KM-INDEP)
};

static void a_call_that_throws_has_changed_nothing() {
    KeyedMutex<Fragile, FragileHash> locks;
    const Fragile first(1), second(2);
    locks.lock(first);
    Fragile::breaks = true;
    int thrown = 0;
    const auto count = [&](auto call) {
        try {
            call();
        } catch (const std::bad_alloc&) {
            ++thrown;
        }
    };
    count([&] { locks.lock(second); });
    count([&] { locks.try_lock(second); });
    CHECK(thrown == 2);
    CHECK(locks.size() == 1);
    Fragile::breaks = false;
    CHECK(locks.try_lock(second));
}

int main() {
    waiters_come_in_order();
    a_key_has_one_holder();
    a_stopped_waiter_leaves_from_the_middle();
    a_stop_before_the_call_ends_a_wait_and_no_more();
    a_grant_that_was_first_is_kept();
    a_stop_that_meets_an_unlock_loses_no_grant();
    a_grant_may_end_before_its_call_returns();
    a_try_leaves_no_trace();
    what_is_not_held_is_not_unlocked();
    a_block_ends_its_own_grant_however_it_is_left();
    a_call_that_throws_has_changed_nothing();
}
