// VitePress' own theme without its fonts, and the colours of the pictures.
import DefaultTheme from 'vitepress/theme-without-fonts'
import './site.css'

export default DefaultTheme
