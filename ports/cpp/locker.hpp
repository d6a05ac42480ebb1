// What the adapter drives: the library, or one of the mistakes.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <stop_token>
#include <string>

#include "keyed_mutex.hpp"

struct Counts {
    std::size_t refs = 0;
    std::size_t waiters = 0;
};

class Locker {
public:
    virtual ~Locker() = default;
    virtual std::optional<kmutex::Ticket> lock(const std::string& key, std::stop_token stop) = 0;
    virtual std::optional<kmutex::Ticket> try_lock(const std::string& key) = 0;
    virtual void unlock(const std::string& key) = 0;
    virtual void unlock(const std::string& key, kmutex::Ticket ticket) = 0;
    virtual std::map<std::string, Counts> counts() const = 0;
};

class Sound : public Locker {
public:
    std::optional<kmutex::Ticket> lock(const std::string& key, std::stop_token stop) override {
        return mutex_.lock(key, stop);
    }
    std::optional<kmutex::Ticket> try_lock(const std::string& key) override { return mutex_.try_lock(key); }
    void unlock(const std::string& key) override { mutex_.unlock(key); }
    void unlock(const std::string& key, kmutex::Ticket ticket) override { mutex_.unlock(key, ticket); }
    std::map<std::string, Counts> counts() const override {
        std::map<std::string, Counts> found;
        for (const auto& [key, references] : mutex_.references()) found[key] = {references, references - 1};
        return found;
    }

private:
    kmutex::KeyedMutex<std::string> mutex_;
};
