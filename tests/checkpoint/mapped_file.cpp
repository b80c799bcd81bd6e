// checkpoint/mapped_file.hpp: what is mapped, and what can't be.

#include "checkpoint/expect_error.hpp"
#include "checkpoint/scratch_folder.hpp"

#include <effinfer/checkpoint/mapped_file.hpp>

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <string>
#include <utility>

namespace mapped_file_tests {

using effinfer::error_code;
using effinfer::checkpoint::is_file;
using effinfer::checkpoint::is_folder;
using effinfer::checkpoint::mapped_file;

TEST_CASE("a mapped file's bytes stay where they are when it moves") {
  const test::scratch_folder folder;
  mapped_file one(folder.write("one", "first"));
  const void* at = one.bytes().data();
  CHECK(one.text() == "first");
  CHECK(one.path() == folder.path("one"));
  mapped_file moved(std::move(one));
  CHECK(moved.bytes().data() == at);
  mapped_file two(folder.write("two", "second"));
  two = std::move(moved);
  CHECK(two.text() == "first");
  CHECK(two.bytes().data() == at);
  CHECK(mapped_file(folder.write("empty", "")).text().empty());
  CHECK(mapped_file().bytes().empty());
}

TEST_CASE("what is no regular file is refused, and nothing hangs") {
  const test::scratch_folder folder;
  const auto refused = [](const std::string& path, std::string_view why) {
    test::expect_error(error_code::io, {path, why}, [&] { return mapped_file(path); });
    CHECK(!is_file(path));
  };
  refused(folder.path("absent"), "can't be opened");
  refused(folder.path(), "is not a regular file");
  refused("", "can't be opened");
  refused(folder.link("itself", "itself"), "can't be opened");
  folder.link("one", "other");
  refused(folder.link("other", "one"), "can't be opened");
  refused(folder.path("absent/below"), "can't be opened");
  const std::string pipe = folder.path("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  refused(pipe, "is not a regular file");

  const std::string file = folder.write("file", "x");
  CHECK(is_file(file));
  CHECK(!is_folder(file));
  CHECK(is_folder(folder.path()));
  CHECK(is_file(folder.link("link", "file")));
  CHECK(mapped_file(folder.path("link")).text() == "x");
}

}  // namespace mapped_file_tests
