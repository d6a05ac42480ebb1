// A keyed mutex for threads: one mutex for each key, made when a key is first asked for and gone when nobody uses it.
// The clauses (KM-...) are those of specs/contract.md. Cancel against grant: keep.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <unordered_map>
#include <utility>

namespace kmutex {

// Unlock of a key that has no holder, or of a grant that has ended (KM-UNHELD, KM-TOKEN). Nothing has changed.
struct UnheldKeyError : std::logic_error {
    using std::logic_error::logic_error;
};

// Names one grant of one KeyedMutex. Never used twice.
using Ticket = std::uint64_t;

template <class Key, class Hash = std::hash<Key>, class Equal = std::equal_to<Key>>
class KeyedMutex {
public:
    KeyedMutex() = default;
    KeyedMutex(const KeyedMutex&) = delete;
    KeyedMutex& operator=(const KeyedMutex&) = delete;

    // Waits until this request holds `key`, in the order of the requests (KM-FIFO). Not re-entrant.
    Ticket lock(const Key& key) { return *lock(key, std::stop_token{}); }

    // The same, until `stop` is requested. Without a value the request has left no trace (KM-CANCEL). A grant that came
    // first is kept (KM-RACE), and a free key is taken even where the stop came before the call.
    std::optional<Ticket> lock(const Key& key, std::stop_token stop) {
        Waiter waiter;
        Queue place(1);
        std::unique_lock guard(guard_);
        Queue& queue = queues_[key];
        // Nothing throws from here to the wait: an entry is never left without a request.
        const Ticket ticket = ++last_ticket_;
        place.front() = {ticket, &waiter};
        const auto mine = place.begin();
        const bool free = queue.empty();
        queue.splice(queue.end(), place);
        if (free) {
            mine->waiter = nullptr;
            return ticket;
        }
        if (waiter.wake.wait(guard, stop, [&] { return waiter.granted; })) {
            return ticket;
        }
        // Not granted, so it still stands in the queue, behind a holder: the entry stays.
        queue.erase(mine);
        return std::nullopt;
    }

    // Takes a free key; refuses a held one at once and without a trace (KM-EXPIRED).
    std::optional<Ticket> try_lock(const Key& key) {
        Queue place(1);
        std::lock_guard guard(guard_);
        const auto [entry, free] = queues_.try_emplace(key);
        if (!free) {
            return std::nullopt;
        }
        const Ticket ticket = ++last_ticket_;
        place.front() = {ticket, nullptr};
        entry->second.splice(entry->second.end(), place);
        return ticket;
    }

    // Ends the grant of whoever holds `key`. Throws UnheldKeyError.
    void unlock(const Key& key) {
        std::lock_guard guard(guard_);
        const auto entry = queues_.find(key);
        if (entry == queues_.end()) {
            throw UnheldKeyError("unlock of a key that nobody holds");
        }
        release(entry);
    }

    // Ends the grant that `ticket` names and no other. Throws UnheldKeyError where it has ended.
    void unlock(const Key& key, Ticket ticket) {
        std::lock_guard guard(guard_);
        const auto entry = queues_.find(key);
        if (entry == queues_.end() || entry->second.front().ticket != ticket) {
            throw UnheldKeyError("this grant of the key has ended");
        }
        release(entry);
    }

    // How many keys are held.
    std::size_t size() const {
        std::lock_guard guard(guard_);
        return queues_.size();
    }

    // The references of each held key: its holder and its waiters.
    std::unordered_map<Key, std::size_t, Hash, Equal> references() const {
        std::lock_guard guard(guard_);
        std::unordered_map<Key, std::size_t, Hash, Equal> found;
        for (const auto& [key, queue] : queues_) {
            found.emplace(key, queue.size());
        }
        return found;
    }

private:
    // On the stack of the call that waits. The queue can't keep it: a grant may be ended by `unlock(key)` before the
    // call that waited for it has woken up, and the place in the queue is gone then.
    struct Waiter {
        std::condition_variable_any wake;
        bool granted = false;
    };
    struct Request {
        Ticket ticket = 0;
        Waiter* waiter = nullptr;
    };
    // The head holds; the others wait, oldest first. No queue in the table is empty while the guard is free.
    using Queue = std::list<Request>;
    using Table = std::unordered_map<Key, Queue, Hash, Equal>;

    void release(typename Table::iterator entry) {
        Queue& queue = entry->second;
        queue.pop_front();
        if (queue.empty()) {
            queues_.erase(entry);
            return;
        }
        Waiter* next = std::exchange(queue.front().waiter, nullptr);
        next->granted = true;
        // Under the guard: the waiter can't return, and take `wake` away, before this is done.
        next->wake.notify_one();
    }

    mutable std::mutex guard_;
    Table queues_;
    Ticket last_ticket_ = 0;
};

// Holds `key` for a block, however the block is left (KM-TOKEN). Where somebody else has ended the grant by
// `unlock(key)`, the end of the block changes nothing.
template <class Key, class Hash = std::hash<Key>, class Equal = std::equal_to<Key>>
class Hold {
public:
    Hold(KeyedMutex<Key, Hash, Equal>& mutex, Key key)
        : mutex_(mutex), key_(std::move(key)), ticket_(mutex.lock(key_)) {}
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
        try {
            mutex_.unlock(key_, ticket_);
        } catch (const UnheldKeyError&) {
        }
    }

private:
    KeyedMutex<Key, Hash, Equal>& mutex_;
    const Key key_;
    const Ticket ticket_;
};

}  // namespace kmutex
