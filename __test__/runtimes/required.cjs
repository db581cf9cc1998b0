// Of modules.mjs: the package as CommonJS has it.
module.exports = { fdmon: require('fdmon'), fd: require('fdmon/fd') }
