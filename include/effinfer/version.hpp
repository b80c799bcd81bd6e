#pragma once
// The one place that states the version: CMake, pkg-config and the docs read these lines.

#define EFFINFER_VERSION_MAJOR 0
#define EFFINFER_VERSION_MINOR 1
#define EFFINFER_VERSION_PATCH 0
