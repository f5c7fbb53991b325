// From the text of a PTX file to a Program. Whatever is not known here ends the run: nothing is skipped but what says
// how to compile, not what to compute.
#pragma once

#include <string>

#include "ptx/program.h"

namespace ketgrad::ptx {

// Adds a file's functions to the program. Throws a Fault that names the line.
void parse(Program& program, const std::string& name, std::string content);

// The same for a file on disk.
void parse_file(Program& program, const std::string& path);

}  // namespace ketgrad::ptx
