#pragma once
// Runs another program to its end: what it wrote to stdout, how long it took, and the most memory it had resident.

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" char** environ;  // NOLINT(readability-redundant-declaration): not every <unistd.h> declares it

namespace child_process {

struct result {
  std::string output;
  double seconds = 0;  ///< from before its start to its end
  std::uint64_t peak_bytes =
      0;  ///< resident; of the program that started it if that had more, so start it from a small one
};

/// Errors: std::runtime_error where the program can't be started or fails, with the command.
inline result run(std::vector<std::string> command) {
  std::string text;
  std::vector<char*> arguments;
  for (std::string& s : command) {
    text += (text.empty() ? "" : " ") + s;
    arguments.push_back(s.data());
  }
  arguments.push_back(nullptr);
  const auto start = std::chrono::steady_clock::now();
  int ends[2];
  if (pipe(&ends[0]) != 0) throw std::runtime_error(std::string("pipe: ") + std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t id = 0;
  const int failed = posix_spawnp(&id, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failed != 0) {
    close(ends[0]);
    throw std::runtime_error(text + ": " + std::strerror(failed));
  }
  result r;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(ends[0], &buffer[0], sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    r.output.append(&buffer[0], static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  rusage usage{};
  while (wait4(id, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw std::runtime_error("this failed, try it by hand: " + text);
#if defined(__APPLE__)
  r.peak_bytes = static_cast<std::uint64_t>(usage.ru_maxrss);
#else
  r.peak_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
#endif
  return r;
}

}  // namespace child_process
