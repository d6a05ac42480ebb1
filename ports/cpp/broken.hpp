// Lockers that are wrong in one way each, as they go wrong in C++. `Faulty` is the usual shape, with a count beside a
// queue; where a mistake is made, its name stands.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "locker.hpp"

enum class Mistake {
    none,                 // the others are made in this one
    counts_the_shared,    // erases at use_count() == 2, which takes one waiter for nobody
    early_return,         // `return std::nullopt` past the line that counts down
    stays_queued,         // a waiter that was stopped stays in the queue and is granted later
    ignores_the_result,   // asks the stop token where `wait` has said whether the grant was first
    pops_back,            // a std::vector as a stack
    waits_while_held,     // `while (held) wake.wait(guard)`: whoever wakes first has it
    erases_what_is_none,  // `table.erase(key)` says 0 and nobody looks
    square_brackets,      // `table[key]`, and nothing that erases
    counts_the_try,       // counts before it looks, and returns without counting down
    counts_in_the_entry,  // the last ticket goes with the entry, and the next one is a ticket that there has been
    destroys_by_key,      // the destructor of the lease unlocks the key, whoever holds it
};

struct Listed {
    const char* name;
    const char* clauses;  // any of them is a right name for the mistake, the first is the best
    Mistake mistake;
};

// It conforms: else a mistake could be found for what is wrong with the locker that it is made in.
inline constexpr Listed base = {"none", "", Mistake::none};

inline constexpr Listed mistakes[] = {
    {"counts-the-shared", "KM-REF,KM-EXCL,KM-UNHELD", Mistake::counts_the_shared},
    {"early-return", "KM-REF,KM-CANCEL,KM-IDLE", Mistake::early_return},
    {"stays-queued", "KM-CANCEL,KM-REF,KM-LIVE,KM-RACE", Mistake::stays_queued},
    {"ignores-the-result", "KM-RACE,KM-LIVE", Mistake::ignores_the_result},
    {"pops-back", "KM-FIFO,KM-HANDOFF", Mistake::pops_back},
    {"waits-while-held", "KM-HANDOFF,KM-FIFO", Mistake::waits_while_held},
    {"erases-what-is-none", "KM-UNHELD", Mistake::erases_what_is_none},
    {"square-brackets", "KM-IDLE", Mistake::square_brackets},
    {"counts-the-try", "KM-EXPIRED,KM-REF,KM-ATOMIC,KM-IDLE", Mistake::counts_the_try},
    {"counts-in-the-entry", "KM-TOKEN", Mistake::counts_in_the_entry},
    {"destroys-by-key", "KM-TOKEN", Mistake::destroys_by_key},
};

class Faulty : public Locker {
public:
    explicit Faulty(Mistake mistake) : mistake_(mistake) {}

    std::optional<kmutex::Ticket> lock(const std::string& key, std::stop_token stop) override {
        std::unique_lock guard(guard_);
        const std::shared_ptr<Entry> entry = request(key);
        const kmutex::Ticket ticket = next_ticket(*entry);
        while (entry->holder != 0) {
            entry->queue.push_back(ticket);
            const auto left_the_queue = [&] { return entry->place(ticket) == entry->queue.end(); };
            bool granted = told_.wait(guard, stop, left_the_queue);
            if (mistake_ == Mistake::ignores_the_result) granted = !stop.stop_requested();
            if (!granted) {
                if (mistake_ != Mistake::stays_queued && !left_the_queue()) {
                    entry->queue.erase(entry->place(ticket));
                    if (mistake_ != Mistake::early_return) --entry->refs;
                }
                return std::nullopt;
            }
            if (mistake_ != Mistake::waits_while_held) return ticket;
            // Stands for a machine that is busy when it wakes; without it the mistake shows in few bursts only.
            guard.unlock();
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            guard.lock();
        }
        entry->holder = ticket;
        return ticket;
    }

    std::optional<kmutex::Ticket> try_lock(const std::string& key) override {
        std::lock_guard guard(guard_);
        const std::shared_ptr<Entry> entry = request(key);
        if (entry->holder != 0) {
            if (mistake_ != Mistake::counts_the_try) --entry->refs;
            return std::nullopt;
        }
        return entry->holder = next_ticket(*entry);
    }

    void unlock(const std::string& key) override {
        std::lock_guard guard(guard_);
        release(key, 0);
    }

    void unlock(const std::string& key, kmutex::Ticket ticket) override {
        std::lock_guard guard(guard_);
        release(key, mistake_ == Mistake::destroys_by_key ? 0 : ticket);
    }

    std::map<std::string, Counts> counts() const override {
        std::lock_guard guard(guard_);
        std::map<std::string, Counts> found;
        for (const auto& [key, entry] : table_) found[key] = {entry->refs, entry->queue.size()};
        return found;
    }

private:
    struct Entry {
        std::size_t refs = 0;
        kmutex::Ticket holder = 0;  // 0: free
        kmutex::Ticket last_ticket = 0;
        std::deque<kmutex::Ticket> queue;

        std::deque<kmutex::Ticket>::iterator place(kmutex::Ticket ticket) {
            return std::find(queue.begin(), queue.end(), ticket);
        }
    };

    std::shared_ptr<Entry> request(const std::string& key) {
        std::shared_ptr<Entry>& entry = table_[key];
        if (!entry) entry = std::make_shared<Entry>();
        ++entry->refs;
        return entry;
    }

    kmutex::Ticket next_ticket(Entry& entry) {
        return ++(mistake_ == Mistake::counts_in_the_entry ? entry.last_ticket : last_ticket_);
    }

    // ticket: whose grant must be the one; 0: anybody's.
    void release(const std::string& key, kmutex::Ticket ticket) {
        const auto found = table_.find(key);
        const std::shared_ptr<Entry> entry = found == table_.end() ? nullptr : found->second;
        if (!entry || entry->holder == 0 || (ticket != 0 && entry->holder != ticket)) {
            if (mistake_ == Mistake::erases_what_is_none && ticket == 0) return;
            throw kmutex::UnheldKeyError("not held");
        }
        entry->holder = 0;
        --entry->refs;
        if (!entry->queue.empty()) {
            const bool last = mistake_ == Mistake::pops_back;
            const kmutex::Ticket next = last ? entry->queue.back() : entry->queue.front();
            last ? entry->queue.pop_back() : entry->queue.pop_front();
            if (mistake_ != Mistake::waits_while_held) entry->holder = next;
            told_.notify_all();
        }
        const std::size_t uncounted = mistake_ == Mistake::counts_the_shared ? 1 : 0;
        if (entry->refs <= uncounted && mistake_ != Mistake::square_brackets) table_.erase(key);
    }

    const Mistake mistake_;
    mutable std::mutex guard_;
    std::condition_variable_any told_;
    std::unordered_map<std::string, std::shared_ptr<Entry>> table_;
    kmutex::Ticket last_ticket_ = 0;
};
