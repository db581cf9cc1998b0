import { currentContext } from 'fdmon'

export const { id } = currentContext()
