// Plays specs/vectors.json in this process, by the words of specs/vectors.md: the library takes a right course through
// each, as does what the mistakes of broken.hpp are made in; each mistake through not all. What many rounds say of
// times is not judged here.
//
//     vectors, or KMUTEX_VECTORS=FILE vectors
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "broken.hpp"
#include "json.hpp"
#include "locker.hpp"

namespace {

using Seconds = std::chrono::seconds;

// One vector on one locker, with as many copies of it side by side as it says. Calls that hang keep it alive.
class Play : public std::enable_shared_from_this<Play> {
public:
    Play(const Json& vector, std::unique_ptr<Locker> locker)
        : locker_(std::move(locker)), moves_(vector.at("moves").items),
          copies_(vector.find("keys") ? std::stoul(vector.at("keys").words) : 1),
          courses_(copies_) {
        for (auto& courses : courses_) courses = declared(vector.at("courses").items);
    }

    // Empty: it took a right course.
    std::string wrong(Seconds patience) {
        for (std::size_t move = 0; move < moves_.size(); ++move) {
            std::vector<Json> unlocks(copies_);
            std::vector<std::string> kept;
            for (std::size_t copy = 0; copy < copies_; ++copy) give(moves_[move], copy, unlocks[copy], kept);
            const auto limit = std::chrono::steady_clock::now() + patience;
            while (!settled(move, unlocks)) {
                if (std::chrono::steady_clock::now() > limit) return "move " + std::to_string(move);
                std::this_thread::sleep_for(std::chrono::microseconds(100));
            }
            std::lock_guard guard(guard_);
            for (const std::string& call : kept) {
                if (ended_[call] == "cancelled") return "keep is declared, and a grant that was first is not kept";
            }
            ended_.clear();
            for (auto& [key, tokens] : tokens_) {
                for (const kmutex::Ticket token : tokens.now) tokens.before = std::max(tokens.before, token);
                tokens.now.clear();
            }
        }
        return "";
    }

private:
    // The tokens of a key's grants: the highest of the moves before, and those of this move.
    struct Tokens {
        kmutex::Ticket before = 0;
        std::set<kmutex::Ticket> now;
    };

    // The courses that a lock with these features may take: a free key is taken also where the stop came before the call.
    std::vector<const Json*> declared(const std::vector<Json>& courses) const {
        std::vector<const Json*> left;
        for (const Json& course : courses) left.push_back(&course);
        for (std::size_t move = 0; move < moves_.size(); ++move) {
            const Json& command = moves_[move].items.at(0);
            if (command.at("op").words != "done") continue;
            const auto takes = [&](const Json& course) {
                const Json* how = course.items[move].at("calls").find(command.at("call").words);
                return how && how->words == "granted";
            };
            std::erase_if(left, [&](const Json* course) {
                return !takes(*course) && std::any_of(courses.begin(), courses.end(), [&](const Json& one) {
                    return takes(one) && std::equal(one.items.begin(), one.items.begin() + move, course->items.begin());
                });
            });
        }
        return left;
    }

    static std::string key_of(const Json& command, std::size_t copy) {
        return command.at("key").words + ":" + std::to_string(copy) + ":the-same-end-of-all-keys";
    }

    // Gives the commands of a move to one copy. kept: the calls that are stopped right behind an unlock.
    void give(const Json& move, std::size_t copy, Json& unlocks, std::vector<std::string>& kept) {
        unlocks.kind = Json::list;
        std::string before;
        for (const Json& command : move.items) {
            const std::string op = command.at("op").words;
            const std::string call =
                std::to_string(copy) + ":" + (command.find("call") ? command.at("call").words : "");
            if (op == "lock" || op == "done") {
                if (op == "done") stops_[call].request_stop();
                start(call, key_of(command, copy));
            } else if (op == "try") {
                const std::string key = key_of(command, copy);
                const auto ticket = locker_->try_lock(key);
                end(call, key, ticket, "timeout");
            } else if (op == "cancel") {
                // The lone waiter is the one that the unlock has granted the key.
                if (before == "unlock" && locker_->counts().size() == 1 && locker_->counts().begin()->second.waiters == 0)
                    kept.push_back(call);
                stops_[call].request_stop();
            } else if (op == "unlock") {
                unlocks.items.push_back(unlock(key_of(command, copy), std::nullopt));
            } else if (op == "lease") {
                std::unique_lock guard(guard_);
                const auto grant = grants_.find(call);
                const bool held = grant != grants_.end();
                const auto [key, ticket] = held ? grant->second : std::pair<std::string, kmutex::Ticket>();
                guard.unlock();
                unlocks.items.push_back(held ? unlock(key, ticket) : word("unheld"));
            } else if (op == "free") {
                const std::string key = key_of(command, copy);
                std::unique_lock guard(guard_);
                const bool open = open_[key] > 0;
                guard.unlock();
                if (open) unlocks.items.push_back(unlock(key, std::nullopt));
            } else {
                std::printf("no command is called %s\n", op.c_str());
                std::exit(1);
            }
            before = op;
        }
    }

    void start(const std::string& call, const std::string& key) {
        const std::stop_token stop = stops_[call].get_token();
        std::thread([self = shared_from_this(), call, key, stop] {
            const auto ticket = self->locker_->lock(key, stop);
            self->end(call, key, ticket, "cancelled");
        }).detach();
    }

    void end(const std::string& call, const std::string& key, std::optional<kmutex::Ticket> ticket, const char* refused) {
        std::lock_guard guard(guard_);
        if (ticket) {
            grants_[call] = {key, *ticket};
            ++open_[key];
        }
        ended_[call] = ticket ? "granted" : refused;
        if (ticket && (*ticket <= tokens_[key].before || !tokens_[key].now.insert(*ticket).second))
            ended_[call] = "granted with a token that there has been";
    }

    Json unlock(const std::string& key, std::optional<kmutex::Ticket> ticket) {
        try {
            ticket ? locker_->unlock(key, *ticket) : locker_->unlock(key);
        } catch (const kmutex::UnheldKeyError&) {
            return word("unheld");
        }
        std::lock_guard guard(guard_);
        --open_[key];
        return word("released");
    }

    static Json word(const std::string& words) {
        Json found;
        found.kind = Json::text;
        found.words = words;
        return found;
    }

    static Json whole(std::size_t value) {
        Json found;
        found.kind = Json::number;
        found.words = std::to_string(value);
        return found;
    }

    static Json object(std::map<std::string, Json> named) {
        Json found;
        found.kind = Json::fields;
        found.named = std::move(named);
        return found;
    }

    // Whether each copy shows what one of its courses has here; then the others are out of the question.
    bool settled(std::size_t move, const std::vector<Json>& unlocks) {
        std::vector<std::map<std::string, Json>> calls(copies_), tables(copies_);
        {
            std::lock_guard guard(guard_);
            for (const auto& [call, how] : ended_) {
                const std::size_t colon = call.find(':');
                calls[std::stoul(call)][call.substr(colon + 1)] = word(how);
            }
        }
        for (const auto& [key, counts] : locker_->counts()) {
            const std::size_t colon = key.find(':');
            tables[std::stoul(key.substr(colon + 1))][key.substr(0, colon)] =
                object({{"refs", whole(counts.refs)}, {"waiters", whole(counts.waiters)}});
        }
        auto left = courses_;
        for (std::size_t copy = 0; copy < copies_; ++copy) {
            const Json seen =
                object({{"calls", object(calls[copy])}, {"unlocks", unlocks[copy]}, {"table", object(tables[copy])}});
            std::erase_if(left[copy], [&](const Json* course) { return course->items[move] != seen; });
            if (left[copy].empty()) return false;
        }
        courses_ = left;
        return true;
    }

    const std::unique_ptr<Locker> locker_;
    const std::vector<Json> moves_;
    const std::size_t copies_;
    std::vector<std::vector<const Json*>> courses_;
    std::map<std::string, std::stop_source> stops_;
    std::mutex guard_;  // of what follows
    std::map<std::string, std::string> ended_;  // the calls that have ended since the move began
    std::map<std::string, std::pair<std::string, kmutex::Ticket>> grants_;
    std::map<std::string, Tokens> tokens_;
    std::map<std::string, int> open_;  // of each key: grants that were seen to return, less releases
};

// The lock has no time limits.
bool fits(const Json& vector) {
    const auto& needs = vector.at("needs").items;
    return std::none_of(needs.begin(), needs.end(), [](const Json& need) { return need.words == "deadline"; });
}

// Empty: each vector that fits takes one of its courses.
std::string first_failure(const Json& vectors, const std::function<std::unique_ptr<Locker>()>& build, Seconds patience) {
    for (const Json& vector : vectors.items) {
        if (!fits(vector)) continue;
        const int rounds = vector.find("rounds") ? std::stoi(vector.at("rounds").words) : 1;
        for (int round = 0; round < rounds; ++round) {
            const std::string wrong = std::make_shared<Play>(vector, build())->wrong(patience);
            if (!wrong.empty()) return vector.at("id").words + ", round " + std::to_string(round) + ": " + wrong;
        }
    }
    return "";
}

[[noreturn]] void fail(const std::string& message) {
    std::printf("vectors: %s\n", message.c_str());
    std::exit(1);
}

}  // namespace

int main() {
    const char* named = std::getenv("KMUTEX_VECTORS");
    const std::string path = named ? named : "../../specs/vectors.json";
    std::ifstream file(path);
    if (!file) fail("no " + path);
    const Json read = Json::object(std::string(std::istreambuf_iterator<char>(file), {}));
    if (read.at("format").words != "kmutex-vectors/2") fail("these vectors are of another format");
    const Json& vectors = read.at("vectors");
    const std::string wrong = first_failure(vectors, [] { return std::make_unique<Sound>(); }, Seconds(10));
    if (!wrong.empty()) fail(wrong);
    const auto build_base = [] { return std::make_unique<Faulty>(base.mistake); };
    const std::string wrong_base = first_failure(vectors, build_base, Seconds(10));
    if (!wrong_base.empty()) fail("what the mistakes are made in: " + wrong_base);
    for (const Listed& listed : mistakes) {
        const auto build = [&] { return std::make_unique<Faulty>(listed.mistake); };
        if (first_failure(vectors, build, Seconds(1)).empty())
            fail(std::string(listed.name) + " takes a right course through every vector");
    }
    const auto played = std::count_if(vectors.items.begin(), vectors.items.end(), fits);
    std::printf("%td vectors, %td left out, %zu mistakes found\n", played, std::ssize(vectors.items) - played,
                std::size(mistakes));
    std::fflush(stdout);
    // At once: calls of the mistakes still wait.
    std::_Exit(0);
}
