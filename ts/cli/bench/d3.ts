// The scales and shapes of the plots. The build puts them into this file, with their licences, so that nobody has to install them.
export { scaleLog } from 'd3-scale'
export { line, symbol, symbolCircle, symbolSquare, symbolTriangle } from 'd3-shape'
