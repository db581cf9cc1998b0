exports.id = require('fdmon').currentContext().id
